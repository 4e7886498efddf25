"""gunicorn's threaded worker, made fit for clients that are slow, gone or wrong. What is served is not known here.

A thread gets a request when its head is there, waits for its client as `patience.py` says, and asks for the body only
when somebody wants to read it. What gunicorn refuses by itself, before there is a request, is answered in the shape of
all errors.
"""

from __future__ import annotations

import json
import logging
import math
import socket
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from types import FrameType
from typing import Any, Protocol

from gunicorn.glogging import Logger
from gunicorn.http import errors
from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.workers.gthread import TConn

from remote_lab.connections import Connection, CrowdedWorker
from remote_lab.errors import transport_code
from remote_lab.patience import Crowd, TimelyReader, TimelySocket, say_goodbye

log = logging.getLogger(__name__)

SWITCH_SECONDS = 0.0005
HEAD_BYTES = 8192
"""Of a request whose headers are longer, a thread reads the rest."""
HEALTH, HEALTH_THREADS = b"get /healthz", 2
BODIES = (b"content-length", b"transfer-encoding")
"""Headers of requests whose body somebody would have to wait for."""

REFUSALS: tuple[tuple[type[Exception], HTTPStatus, str], ...] = (
    (errors.LimitRequestHeaders, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "Its headers are too large."),
    (errors.LimitRequestLine, HTTPStatus.REQUEST_URI_TOO_LONG, "Its first line is too long."),
    (errors.UnsupportedTransferCoding, HTTPStatus.NOT_IMPLEMENTED, "Of transfer codings only 'chunked' is known."),
    (errors.InvalidHTTPVersion, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "It is not of HTTP/1.0 or HTTP/1.1."),
    (errors.ParseException, HTTPStatus.BAD_REQUEST, "It is not HTTP."),
)
"""What gunicorn refuses while it reads a request, the first that fits."""


class Log(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's messages through the logging that `serve` has set up; it sets nothing up itself."""

    def setup(self, cfg: Any) -> None:
        self.error_log.propagate = self.access_log.propagate = True


class Stoppable(Protocol):
    """What is told when the worker is about to end, and waited for when it has served its last request."""

    def announce_end(self) -> None: ...
    def join(self) -> None: ...


class Worker(CrowdedWorker):
    """A signal that ends it also ends what runs beside it, and SIGINT is as orderly as SIGTERM."""

    service: Stoppable | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Threads get the interpreter in turn: at 5 ms each, as it is by default, a crowd keeps /healthz for a second.
        sys.setswitchinterval(SWITCH_SECONDS)
        self._waiters = Crowd(self.cfg.threads)
        self._health = ThreadPoolExecutor(HEALTH_THREADS, thread_name_prefix="health")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._announce_end()
        super().handle_exit(sig, frame)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        self.handle_exit(sig, frame)

    def is_parent_alive(self) -> bool:
        alive = bool(super().is_parent_alive())
        if not alive:
            self._announce_end()
        return alive

    def on_client_socket_readable(self, conn: Connection, client: socket.socket) -> None:
        """No thread is bothered before the head of a request is complete: senders of half ones cost none."""
        try:
            data = conn.sock.recv(HEAD_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        conn.heard += data
        if not data and not conn.heard:
            self._close(conn)
        elif not data or b"\r\n\r\n" in conn.heard or len(conn.heard) >= HEAD_BYTES:
            super().on_client_socket_readable(conn, client)

    def enqueue_req(self, conn: Connection) -> None:
        """Who asks whether the server is well waits behind nobody: without an answer it would be ended for dead."""
        head = bytes(conn.heard).lower()
        if not head.startswith(HEALTH) or any(header in head for header in BODIES):
            super().enqueue_req(conn)
            return
        conn.init()
        self._wrap_future(self._health.submit(self.handle, conn), conn)

    def handle(self, conn: Connection) -> tuple[bool, TConn]:
        """Serve one request of a connection; returns whether another may follow."""
        if not isinstance(conn.sock, TimelySocket):
            conn.sock = TimelySocket.of(conn.sock, self._waiters)
            conn.parser.unreader = TimelyReader(conn.sock, self._waiters)
        reader, heard = conn.parser.unreader, bytes(conn.heard)
        conn.heard.clear()
        reader.begin(heard)
        try:
            keep, conn = super().handle(conn)
            left_bytes = _unread_bytes(conn.parser.mesg)
            if keep and left_bytes:
                keep = _discard(conn.parser.mesg, reader, left_bytes)
            if not keep:
                with suppress(OSError):
                    say_goodbye(conn.sock, not reader.gave_up and bool(left_bytes), reader.pace)
        finally:
            reader.end()
        return keep, conn

    def handle_request(self, req: Any, conn: TConn) -> bool:
        """gunicorn asks for the body before anybody has looked at the head; here who reads it does."""
        expects = [header for header in req.headers if header[0] == "EXPECT" and header[1].lower() == "100-continue"]
        req.headers = [header for header in req.headers if header not in expects]
        conn.parser.unreader.must_say_continue = bool(expects)
        try:
            return bool(super().handle_request(req, conn))
        finally:
            conn.parser.unreader.must_say_continue = False

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """Answer what gunicorn could not make a request of; its text is not repeated, it may be anything."""
        refusal = next((item for item in REFUSALS if isinstance(exc, item[0])), None)
        if refusal is None:
            log.error("A request could not be answered", exc_info=exc)
            status, why = HTTPStatus.INTERNAL_SERVER_ERROR, "The server's log has the reason."
        else:
            _, status, why = refusal
            log.info("Refused what %s sent: %d, %s", (addr or ["somebody"])[0], status, ascii(str(exc))[:200])
        with suppress(OSError):
            client.sendall(_answer(status, f"The request was not understood. {why}"))

    def _announce_end(self) -> None:
        if self.service is not None:
            self.service.announce_end()


def _answer(status: HTTPStatus, detail: str) -> bytes:
    body = json.dumps({"detail": detail, "code": transport_code(status.name)}).encode() + b"\n"
    lines = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"X-Request-ID: {uuid.uuid4().hex[:16]}",
        "Connection: close",
        "\r\n",
    )
    return "\r\n".join(lines).encode("ascii") + body


def _unread_bytes(message: Any) -> float:
    """How much of a request's body had not been read when it was answered (gunicorn 23, http/body.py)."""
    reader = getattr(getattr(message, "body", None), "reader", None)
    if isinstance(reader, LengthReader):
        return int(reader.length)
    return math.inf if isinstance(reader, ChunkedReader) and reader.parser is not None else 0


def _discard(message: Any, reader: TimelyReader, left_bytes: float) -> bool:
    """Pass over the rest of a body that is here already; False when it is not."""
    if left_bytes > reader.buffered_bytes():
        return False
    message.body.read()
    return True
