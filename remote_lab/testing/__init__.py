"""The pytest side: lab fixtures and the plugin that orders their tests. It speaks to the server by the client only."""
