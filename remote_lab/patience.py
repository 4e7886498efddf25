"""How long a thread waits for a client: for the bytes of its request, for it to take its answer, for it to go.

A thread serves one request at a time, so whoever is slow keeps one from everybody else. Waiting costs an allowance,
which grows with the bytes that move and shrinks when many threads wait; who has used it up needs one of a few places
for the slow, or is sent away. What is served, and which connection a thread gets, is not known here.
"""

from __future__ import annotations

import errno
import logging
import math
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from gunicorn.http import errors
from gunicorn.http.unreader import SocketUnreader

log = logging.getLogger(__name__)

Moved = TypeVar("Moved")

PATIENCE_SECONDS = 1.0
BYTES_PER_SECOND = 10_000
"""Whoever moves fewer is slow; also how the deadline of a request grows."""
PRESSED_PATIENCE_SECONDS = 0.02
PRESSED_BYTES_PER_SECOND = 1_000_000
REQUEST_SECONDS = 60.0
"""For a request to be complete, and a second more for each `BYTES_PER_SECOND` of it that came."""
SEND_SECONDS = 60.0
"""The same for each piece of an answer to be taken."""
LINGER_SECONDS = 5.0
LINGER_BYTES = 64 * 1024 * 1024
LOOK_SECONDS = 0.25
"""How soon somebody who waits notices that many do."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Crowd:
    """The threads of a worker that wait for clients, and the places for clients that are slow."""

    def __init__(self, threads: int) -> None:
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(max(1, threads // 8))
        self._pressed_from = max(1, threads // 2)
        self._waiting = 0

    @property
    def is_pressed(self) -> bool:
        """Whether so many threads wait that the others have to be spared."""
        return self._waiting > self._pressed_from

    def __enter__(self) -> None:
        with self._lock:
            self._waiting += 1

    def __exit__(self, *_exc: object) -> None:
        with self._lock:
            self._waiting -= 1

    def take_place(self) -> bool:
        """Be one of the slow; False when there is no place."""
        return self._places.acquire(blocking=False)

    def give_place_back(self) -> None:
        """Be slow no more."""
        self._places.release()


class Pace:
    """How long one client has been waited for, in one direction."""

    def __init__(self, crowd: Crowd, pressed_bytes_per_second: float) -> None:
        self._crowd = crowd
        self._pressed_bytes_per_second = pressed_bytes_per_second
        self._waited_seconds = 0.0
        self._moved_bytes = 0
        self._has_place = False
        self._deadline = 0.0

    def begin(self, seconds: float) -> None:
        """Something begins that has to be over after so many seconds, and those that its bytes earn."""
        self._deadline = time.monotonic() + seconds

    def end(self) -> None:
        """It is over, and whatever comes next begins anew."""
        self._waited_seconds, self._moved_bytes = 0.0, 0
        if self._has_place:
            self._has_place = False
            self._crowd.give_place_back()

    def move(self, connection: socket.socket, operation: Callable[[], Moved]) -> Moved:
        """Receive or send as soon as that is possible; TimeoutError says why it took too long."""
        while True:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"a request has to be complete within {REQUEST_SECONDS:g} s")
            if not self._has_place and self._allowance() <= 0:
                self._has_place = self._crowd.take_place()
                if not self._has_place:
                    raise TimeoutError("too many other requests are slow as well")
            connection.settimeout(min(left, LOOK_SECONDS if self._has_place else min(LOOK_SECONDS, self._allowance())))
            began = time.monotonic()
            try:
                with self._crowd:
                    return operation()
            except TimeoutError:
                continue
            finally:
                self._waited_seconds += time.monotonic() - began

    def earned(self, moved_bytes: int) -> None:
        """So many bytes have moved."""
        self._moved_bytes += moved_bytes
        self._deadline += moved_bytes / BYTES_PER_SECOND

    def _allowance(self) -> float:
        if self._crowd.is_pressed:
            patience, rate = PRESSED_PATIENCE_SECONDS, self._pressed_bytes_per_second
        else:
            patience, rate = PATIENCE_SECONDS, BYTES_PER_SECOND
        return patience + self._moved_bytes / rate - self._waited_seconds


class RequestTooSlow(errors.NoMoreData, TimeoutError):  # type: ignore[misc]  # gunicorn has no types
    """The rest of a request did not come in time; TimeoutError is what the application knows it as."""

    def __init__(self, why: str) -> None:
        super().__init__()
        self.why = why

    def __str__(self) -> str:
        return self.why


class TimelySocket(socket.socket):
    """A connection on which an answer is sent to whoever takes it, and to nobody who does not."""

    pace: Pace

    @classmethod
    def of(cls, connection: socket.socket, crowd: Crowd) -> TimelySocket:
        """The same connection; the object that was given is of no use any more."""
        made = cls(fileno=connection.detach())
        # What is sent may lie in the kernel still: it earns nothing when others wait.
        made.pace = Pace(crowd, math.inf)
        return made

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send it all; ConnectionResetError, which gunicorn passes over, when that takes too long."""
        self.pace.begin(SEND_SECONDS)
        left = memoryview(data)
        try:
            while left:
                sent = self.pace.move(self, lambda: self.send(left, flags))  # noqa: B023 - called at once
                self.pace.earned(sent)
                left = left[sent:]
        except TimeoutError as error:
            log.info("An answer was not taken in time: %s", error)
            raise ConnectionResetError(errno.ECONNRESET, "the answer was not taken in time") from error


class TimelyReader(SocketUnreader):  # type: ignore[misc]  # gunicorn has no types
    """Reads requests from a connection, none of them for longer than it may take."""

    def __init__(self, connection: TimelySocket, crowd: Crowd) -> None:
        super().__init__(connection)
        self.pace = Pace(crowd, PRESSED_BYTES_PER_SECOND)
        self.must_say_continue = False
        """The client waits to be asked for the body (RFC 9110, 10.1.1), which a refused one never is."""
        self.gave_up = False
        """It took too long, so nobody waits for the rest of it."""

    def begin(self, already_read: bytes) -> None:
        """The next request begins with these bytes."""
        self.unread(already_read)
        self.pace.begin(REQUEST_SECONDS)

    def end(self) -> None:
        """The request has been served."""
        self.pace.end()
        self.sock.pace.end()

    def buffered_bytes(self) -> int:
        """How much of what is read next is here already."""
        return int(self.buf.getbuffer().nbytes)

    def take(self) -> bytes:
        """What was read beyond the last request."""
        data = bytes(self.buf.getvalue())
        self.buf.seek(0)
        self.buf.truncate()
        return data

    def chunk(self) -> bytes:
        try:
            if self.must_say_continue:
                self.must_say_continue = False
                self.sock.sendall(CONTINUE)
            data = self.pace.move(self.sock, lambda: self.sock.recv(self.mxchunk))
        except TimeoutError as error:
            self.gave_up = True
            raise RequestTooSlow(str(error)) from None
        self.pace.earned(len(data))
        return bytes(data)


def say_goodbye(connection: TimelySocket, is_more_to_come: bool, pace: Pace) -> None:
    """End the answer and take what is still coming: closing on unread bytes takes the answer from who sends them.

    Nothing of it is kept, and nobody is waited for who is slow.
    """
    if not is_more_to_come:
        connection.setblocking(False)
        if not connection.recv(65536):  # BlockingIOError, which is most often: nothing is left
            return
    connection.shutdown(socket.SHUT_WR)
    pace.begin(LINGER_SECONDS)
    left = LINGER_BYTES
    while left > 0:
        data = pace.move(connection, lambda: connection.recv(65536))
        if not data:
            return
        left -= len(data)
