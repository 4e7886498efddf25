"""gunicorn's threaded worker, made fit for clients that are slow, gone or wrong. What is served is not known here.

A thread serves one request at a time, so whoever sends slowly keeps one from everybody else. A request whose bytes
stop for longer than `PATIENCE_SECONDS` needs one of a few places for such, and has to be complete by a deadline that
only bytes move. What gunicorn refuses by itself, before there is a request, is answered in the shape of all errors.
"""

from __future__ import annotations

import json
import logging
import socket
import time
import uuid
from contextlib import suppress
from http import HTTPStatus
from threading import BoundedSemaphore
from types import FrameType
from typing import Any, Protocol

from gunicorn.glogging import Logger
from gunicorn.http import errors
from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn, ThreadWorker

from remote_lab.errors import transport_code

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 1.0
REQUEST_SECONDS = 60.0
"""For a request to be complete, and a second more for each `BYTES_PER_SECOND` of it that came."""
BYTES_PER_SECOND = 10_000
SEND_SECONDS = 60.0
LINGER_SECONDS = 5.0
LINGER_BYTES = 64 * 1024 * 1024

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


class RequestTooSlow(errors.NoMoreData, TimeoutError):  # type: ignore[misc]  # gunicorn has no types
    """The rest of a request did not come in time; TimeoutError is what the application knows it as."""

    def __init__(self, why: str) -> None:
        super().__init__()
        self.why = why

    def __str__(self) -> str:
        return self.why


class TimelyReader(SocketUnreader):  # type: ignore[misc]  # gunicorn has no types
    """Reads requests from a connection, none of them for longer than it may take."""

    def __init__(self, connection: socket.socket, slow_places: BoundedSemaphore) -> None:
        super().__init__(connection)
        self._slow_places = slow_places
        self._is_slow = False
        self._deadline = 0.0
        self.gave_up = False
        """It took too long, so nobody waits for the rest of it."""

    def begin(self) -> None:
        """The next request may begin."""
        self._deadline = time.monotonic() + REQUEST_SECONDS

    def end(self) -> None:
        """The request has been served."""
        if self._is_slow:
            self._is_slow = False
            self._slow_places.release()

    def chunk(self) -> bytes:
        try:
            try:
                return self._receive(PATIENCE_SECONDS)
            except TimeoutError:
                self._take_slow_place()
            return self._receive(self._deadline - time.monotonic())
        except TimeoutError as error:
            self.gave_up = True
            raise RequestTooSlow(str(error)) from None
        finally:
            self.sock.settimeout(SEND_SECONDS)

    def _receive(self, seconds: float) -> bytes:
        seconds = min(seconds, self._deadline - time.monotonic())
        if seconds <= 0:
            raise TimeoutError(f"a request has to be complete within {REQUEST_SECONDS:g} s")
        self.sock.settimeout(seconds)
        data: bytes = self.sock.recv(self.mxchunk)
        self._deadline += len(data) / BYTES_PER_SECOND
        return data

    def _take_slow_place(self) -> None:
        if not self._is_slow:
            if not self._slow_places.acquire(blocking=False):
                raise TimeoutError("too many other requests are slow as well")
            self._is_slow = True


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """A signal that ends it also ends what runs beside it, and SIGINT is as orderly as SIGTERM."""

    service: Stoppable | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._slow_places = BoundedSemaphore(max(1, self.cfg.threads // 8))

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

    def handle(self, conn: TConn) -> tuple[bool, TConn]:
        """Serve one request of a connection; returns whether another may follow."""
        if not isinstance(conn.parser.unreader, TimelyReader):
            conn.parser.unreader = TimelyReader(conn.sock, self._slow_places)
        reader = conn.parser.unreader
        reader.begin()
        try:
            keep, conn = super().handle(conn)
        finally:
            reader.end()
        if not keep:
            _say_goodbye(conn.sock, not reader.gave_up and _has_more_to_come(conn.parser.mesg))
        return keep, conn

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
            client.settimeout(SEND_SECONDS)
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


def _has_more_to_come(message: Any) -> bool:
    """Whether a request was answered before its body had been read to the end (gunicorn 23, http/body.py)."""
    reader = getattr(getattr(message, "body", None), "reader", None)
    if isinstance(reader, LengthReader):
        return bool(reader.length)
    return isinstance(reader, ChunkedReader) and reader.parser is not None


def _say_goodbye(connection: socket.socket, is_more_to_come: bool) -> None:
    """End the answer and take what is still coming: closing on unread bytes takes the answer from who sends them."""
    deadline = time.monotonic() + LINGER_SECONDS
    left = LINGER_BYTES
    with suppress(OSError):
        if not is_more_to_come:
            connection.setblocking(False)
            if not connection.recv(65536):  # BlockingIOError, which is most often: nothing is left
                return
        connection.shutdown(socket.SHUT_WR)
        while left > 0 and (seconds := deadline - time.monotonic()) > 0:
            connection.settimeout(seconds)
            data = connection.recv(65536)
            if not data:
                return
            left -= len(data)
