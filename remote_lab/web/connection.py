"""What lies between a route and its client: preferences, streams of events, a connection that broke."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

from flask import request

from remote_lab.core.following import LogFollower


def prefers_async() -> bool:
    """Whether the caller wants 202 instead of waiting (RFC 7240, respond-async)."""
    preferences = ",".join(request.headers.getlist("Prefer")).lower().split(",")
    return "respond-async" in {preference.split(";")[0].strip() for preference in preferences}


def client_is_gone() -> bool:
    """Whether the caller has hung up: nobody will read the answer, and what it would hand over is not taken.

    False where the server does not tell which connection a request came on.
    """
    connection = request.environ.get("gunicorn.socket")
    if not isinstance(connection, socket.socket):
        return False
    readable, _, _ = select.select([connection], [], [], 0)
    try:
        return bool(readable) and connection.recv(1, socket.MSG_PEEK) == b""
    except OSError:
        return True


class EventStream:
    """A boot log as server-sent events (WHATWG HTML, section 9.2): `line` without a name, `phase`, `end`.

    The id of a line is the offset behind it, so that a client which reconnects goes on where it was.
    """

    def __init__(self, follower: LogFollower) -> None:
        self._follower = follower

    def __iter__(self) -> Iterator[bytes]:
        for event in self._follower:
            match event.kind:
                case "line":
                    yield f"id: {event.offset}\ndata: {event.text}\n\n".encode()
                case "alive":
                    yield b": alive\n\n"
                case _:
                    yield f"event: {event.kind}\ndata: {event.text}\n\n".encode()

    def close(self) -> None:
        """Called by the server when the client is gone or everything is sent."""
        self._follower.close()
