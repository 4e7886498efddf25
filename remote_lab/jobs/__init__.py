"""What a person or a CI job runs beside the lab host: `remote-lab run` and `remote-lab release`.

Needs click and the client, nothing of the server: a plain install has these commands.
"""
