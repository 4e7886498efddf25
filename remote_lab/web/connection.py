"""What lies between a route and its client: preferences, streams of events, a connection that broke."""

from __future__ import annotations

import re
import select
import socket
from collections.abc import Iterator

from flask import request

from remote_lab.core.following import LogFollower

MAX_PREFERRED_WAIT_SECONDS = 10.0
_SECONDS = re.compile(r"[0-9]{1,9}")


def prefers_async() -> bool:
    """Whether the caller wants 202 instead of waiting (RFC 7240, respond-async)."""
    return "respond-async" in _preferences()


def preferred_wait_seconds() -> float:
    """How long the caller would wait for more than a 202 (RFC 7240, wait); what is no number counts as none."""
    wanted = _preferences().get("wait", "")
    return min(int(wanted), MAX_PREFERRED_WAIT_SECONDS) if _SECONDS.fullmatch(wanted) else 0.0


def _preferences() -> dict[str, str]:
    named = (one.split(";")[0].partition("=") for one in ",".join(request.headers.getlist("Prefer")).lower().split(","))
    return {name.strip(): value.strip().strip('"') for name, _, value in named}


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
