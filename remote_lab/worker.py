"""gunicorn's threaded worker, made fit for clients that are slow, gone or wrong. What is served is not known here.

The loop reads heads, and answers itself what can be answered from memory, or holds it. A thread gets any other request
when its head is there, waits for its client as `patience.py` says, and asks for the body only when somebody wants to
read it. What gunicorn refuses by itself, before there is a request, is answered in the shape of all errors.
"""

from __future__ import annotations

import json
import logging
import math
import socket
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from types import FrameType
from typing import Any, Protocol

from gunicorn.glogging import Logger
from gunicorn.http import errors
from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.workers.gthread import TConn

from remote_lab.connections import Connection, CrowdedWorker
from remote_lab.errors import transport_code
from remote_lab.heads import HEAD_BYTES, HEAD_END, read_head, with_query, write_answer
from remote_lab.patience import Crowd, TimelyReader, TimelySocket, say_goodbye
from remote_lab.web.fast import FastAnswers, Hold, Told
from remote_lab.web.requests import STARTED

log = logging.getLogger(__name__)

SWITCH_SECONDS = 0.0005
HEALTH, HEALTH_THREADS = b"get /healthz", 2
TIME_IS_OVER = b"wait=0.001"
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
    fast: FastAnswers | None = None
    """Answers what needs no thread."""

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
        """No thread is bothered before the head of a request is complete: senders of half ones cost none.

        Who says more while its request is held is listened to when that is answered; who hangs up is let go.
        """
        try:
            data = conn.sock.recv(HEAD_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        conn.heard += data
        if conn in self.parking:
            if data:
                self.stop_listening_to(conn)
            else:
                self.parking.leave(conn)
                self.close_silent(conn)
        elif not data and not conn.heard:
            self.close_silent(conn)
        elif data and self._answer_at_once(conn):
            return
        elif not data or HEAD_END in conn.heard or len(conn.heard) >= HEAD_BYTES:
            self._enqueue(conn)

    def resume(self, conn: Connection) -> None:
        if not self._answer_at_once(conn, was_held=True):
            # It has been held: the routes answer it as one whose time is over, not as one that should ask later.
            conn.heard[:] = with_query(bytes(conn.heard), TIME_IS_OVER)
            self._enqueue(conn)

    def _answer_at_once(self, conn: Connection, was_held: bool = False) -> bool:
        """Answer a request, or hold it; False when a thread has to look at it."""
        if self.fast is None or not conn.heard.endswith(HEAD_END):
            return False
        read = read_head(bytes(conn.heard))
        if read is None:
            return False
        environ, keep = read
        if was_held:
            environ[STARTED] = conn.asked_at
        answer = self.fast.answer(environ, not self.parking.is_full, was_held)
        if isinstance(answer, Hold):
            conn.asked_at = environ[STARTED]
            return self._park(conn, answer)
        if answer is not None:
            self._tell(conn, answer, keep and self.alive)
        return answer is not None

    def _park(self, conn: Connection, hold: Hold) -> bool:
        try:
            self.parking.park(conn, time.monotonic() + hold.seconds, hold.begin)
        except Exception:
            log.exception("A request could not be held without a thread")
            return False
        return True

    def _tell(self, conn: Connection, answer: Told, keep: bool) -> None:
        """Send an answer of the loop's own; a client that does not take it now is waited for by a thread."""
        data = write_answer(answer.status, answer.headers, answer.body, keep)
        conn.heard.clear()
        try:
            sent = conn.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close_silent(conn)
            return
        if sent < len(data) or (not keep and _is_saying_more(conn.sock)):
            self.stop_listening_to(conn)
            self.submit(self.tpool, conn, partial(self._finish, data[sent:], keep))
        elif keep:
            self.has_answered(conn)
        else:
            self.close_silent(conn)

    def _finish(self, rest: bytes, keep: bool, conn: Connection) -> tuple[bool, TConn]:
        reader = self._timely(conn)
        try:
            if rest:
                conn.sock.sendall(rest)
            if not keep:
                with suppress(OSError):
                    say_goodbye(conn.sock, False, reader.pace)
        finally:
            reader.end()
        return keep, conn

    def _enqueue(self, conn: Connection) -> None:
        """Give a request to a thread.

        Who asks whether the server is well waits behind nobody: without an answer it would be ended for dead.
        """
        self.stop_listening_to(conn)
        head = bytes(conn.heard).lower()
        is_health = head.startswith(HEALTH) and not any(header in head for header in BODIES)
        self.submit(self._health if is_health else self.tpool, conn)

    def handle(self, conn: Connection) -> tuple[bool, TConn]:
        """Serve one request of a connection; returns whether another may follow."""
        reader, heard = self._timely(conn), bytes(conn.heard)
        conn.heard.clear()
        reader.begin(heard)
        try:
            keep, conn = super().handle(conn)
            left_bytes = _unread_bytes(conn.parser.mesg)
            if keep and left_bytes:
                keep = _discard(conn.parser.mesg, reader, left_bytes)
            if keep:
                conn.heard += reader.take()  # by who does not wait for one answer to ask for the next
            else:
                with suppress(OSError):
                    say_goodbye(conn.sock, not reader.gave_up and bool(left_bytes), reader.pace)
        finally:
            reader.end()
        return keep, conn

    def _timely(self, conn: Connection) -> TimelyReader:
        """What a thread reads a connection with, which waits for nobody for too long."""
        if not isinstance(conn.sock, TimelySocket):
            conn.sock = TimelySocket.of(conn.sock, self._waiters)
            conn.parser.unreader = TimelyReader(conn.sock, self._waiters)
        reader: TimelyReader = conn.parser.unreader
        return reader

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


def _is_saying_more(client: socket.socket) -> bool:
    try:
        return bool(client.recv(1, socket.MSG_PEEK))
    except OSError:
        return False


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
