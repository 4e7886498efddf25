"""A server on this machine for whoever has no URL: the one that runs here, or one started for the run and guarded.

The server is spoken to by its command line and its HTTP; nothing of it is imported.
"""
