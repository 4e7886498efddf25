"""A stand-in for a server's HTTP: says what a test tells it to say, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

WAIT_SECONDS = 10
DEVICE = {"name": "r1", "raw": {"id": 1, "mgmt": {"ipv4": "192.0.2.1"}}}


@dataclass(frozen=True)
class Asked:
    """One request, as it arrived."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    @property
    def parts(self) -> list[tuple[str, str | None, bytes]]:
        """Of a multipart body: field, file name and bytes of each part."""
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        message = message_from_bytes(head + self.body, policy=policy.HTTP)
        return [
            (part.get_param("name", header="content-disposition"), part.get_filename(), part.get_payload(decode=True))
            for part in message.iter_parts()
        ]


@dataclass
class Reply:
    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    hold: threading.Event | None = None
    """The answer waits for this."""
    hangs_up: bool = False
    """There is no answer, the connection is reset."""


class FakePeer:
    """Serves on a free port of 127.0.0.1; `says` replaces an answer of the happy path that it starts with."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._changed = threading.Condition()
        self._script: dict[tuple[str, str], list[Reply]] = defaultdict(list)
        self.says("POST", "/session", Reply(201, {"session_id": "s-1", "position": 0}))
        self.says("GET", "/session/s-1", Reply(200, {"status": "active", "position": 0}))
        self.says("DELETE", "/session/s-1", Reply(204))
        self.says("POST", "/session/heartbeat", Reply(204))
        self.says("POST", "/lab", Reply(200, {"reused": False, "devices": [DEVICE]}))
        self.says("GET", "/lab/devices", Reply(200, [DEVICE]))
        self.says("POST", "/lab/release", Reply(204))
        self.says("DELETE", "/lab", Reply(202))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def says(self, method: str, path: str, *replies: Reply) -> None:
        """Answer with one reply after the other, and with the last of them ever after."""
        self._script[method, path] = list(replies)

    def requests(self, method: str, path: str) -> list[Asked]:
        with self._changed:
            return [asked for asked in self.asked if (asked.method, asked.path) == (method, path)]

    def count(self, method: str, path: str) -> int:
        return len(self.requests(method, path))

    def wait_for(self, method: str, path: str, count: int) -> None:
        """Return when the request has come in `count` times."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.count(method, path) >= count, WAIT_SECONDS), (method, path)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, asked: Asked) -> Reply:
        with self._changed:
            self.asked.append(asked)
            self._changed.notify_all()
            replies = self._script[asked.method, asked.path] or [Reply(404, {"detail": f"Not scripted: {asked.path}"})]
            return replies.pop(0) if len(replies) > 1 else replies[0]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        peer = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                url = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                reply = peer._answer(Asked(self.command, url.path, parse_qs(url.query), headers, body))
                if reply.hold is not None:
                    reply.hold.wait(WAIT_SECONDS)
                if reply.hangs_up:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()
                    return
                content = reply.body.encode() if isinstance(reply.body, str) else json.dumps(reply.body).encode()
                if reply.status == 204:
                    content = b""
                with contextlib.suppress(OSError):  # a client that timed out has hung up
                    self._send(reply, content)

            def _send(self, reply: Reply, content: bytes) -> None:
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if reply.status != 204:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                self.wfile.flush()

            do_GET = do_POST = do_DELETE = _serve  # noqa: N815  names that http.server looks for

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  a signature of http.server
                pass

        return Handler
