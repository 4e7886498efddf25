"""A server on this machine for whoever has no URL: the one that runs here, or one started for the run and guarded.

The server is spoken to by its command line and its HTTP; nothing of it is imported.
"""

from remote_lab.local.runs import note_session, noted_session
from remote_lab.local.server import LocalServer, LocalServerFailed, NoLabsHere, obtain, stop

__all__ = [
    "LocalServer",
    "LocalServerFailed",
    "NoLabsHere",
    "note_session",
    "noted_session",
    "obtain",
    "stop",
]
