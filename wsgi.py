"""The application, where `flask` and a WSGI server look for it; it starts no thread and reads only the settings."""

from remote_lab.app import create_app

app = create_app()
