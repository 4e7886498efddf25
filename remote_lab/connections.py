"""gunicorn's threaded worker, made fit for a host that runs out: of open files, of threads, of places for connections.

All threads are started at once, so that no request ever needs another. Connections never take the open files that labs
and the database need. When all places are taken, the connection that has been silent for longest gives way; when none
is silent, new ones wait in the kernel's queue, and nobody spins. Held requests keep their places without a thread. What
is said on a connection is not known here.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from selectors import EVENT_READ
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

from remote_lab.errors import SettingInvalid
from remote_lab.heads import HEAD_END
from remote_lab.parking import Parking

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 8192
ACCEPTED_AT_ONCE = 64
"""Before others have their turn."""
OWN_FILES = 64
FILES_PER_THREAD = 8
"""What a request may open beside its connection: database, parts of an upload, pipes of netlab."""
HEAD_SECONDS = 60.0
"""For the head of a request, once a connection is there or has begun it."""
PAUSE_SECONDS = 0.5
START_SECONDS = 30.0
COMPLAINT_SECONDS = 10.0
LOOP_SECONDS = 1.0
"""How often the arbiter hears that the loop goes on, also when nothing happens."""
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def raise_open_files() -> int:
    """Take as many open files as this process may have; returns how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS * 4 if hard == resource.RLIM_INFINITY else min(hard, MOST_CONNECTIONS * 4)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return wanted if soft == resource.RLIM_INFINITY else soft


def connections_for(open_files: int, threads: int) -> int:
    """How many connections leave enough open files for everything else; SettingInvalid when that are too few."""
    reserved = OWN_FILES + FILES_PER_THREAD * threads
    connections = min(MOST_CONNECTIONS, open_files - reserved)
    if connections < 2 * threads:
        raise SettingInvalid(
            "REMOTE_LAB_THREADS",
            str(threads),
            f"fewer threads, or more open files than {open_files}: {reserved + 2 * threads} are needed for as many "
            "(ulimit -n; LimitNOFILE= in a unit of systemd)",
        )
    return connections


class Connection(TConn):  # type: ignore[misc]  # gunicorn has no types
    """A connection, and since when nothing was said on it, by a clock that does not jump."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.silent_since = time.monotonic()
        self.heard = bytearray()
        """Of its next request, which is not complete enough for a thread."""
        self.was_answered = False
        self.asked_at = 0.0
        """When the request came that is held, on the same clock."""


Serve = Callable[[Connection], tuple[bool, Connection]]
"""Serves a connection on a thread, and says whether it stays."""


class CrowdedWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Takes connections while there is room.

    Of gunicorn 23's loop only the threads are left, and how they serve a request: what it does around each one looks
    at all that are being served, and counts connections on many threads without a lock.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.futures: set[Future[tuple[bool, Connection]]] = set()
        self.parking: Parking[Connection] = Parking(self.worker_connections // 2, self._ring)
        """Of requests that are held; as many places are left for everybody else."""
        self._open: set[Connection] = set()
        self._is_crowded = False
        self._paused: list[tuple[socket.socket, partial[None]]] = []
        self._resume_at = self._look_at = self._complain_at = self._beat_at = 0.0

    def get_thread_pool(self) -> ThreadPoolExecutor:
        """All of its threads run already; RuntimeError when the host does not let it have them."""
        threads = self.cfg.threads
        pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="request")
        together = threading.Barrier(threads + 1)
        try:
            for _ in range(threads):
                pool.submit(together.wait, START_SECONDS)
            together.wait(START_SECONDS)
        except (RuntimeError, MemoryError):
            together.abort()
            log.critical("The host does not let this server have REMOTE_LAB_THREADS=%d threads (ulimit -u)", threads)
            raise
        return pool

    def run(self) -> None:
        """Serve until the worker is to end; then whoever is held is let go, and requests in flight are finished."""
        for listener in self.sockets:
            listener.setblocking(False)
            self.poller.register(listener, EVENT_READ, partial(self.accept, listener.getsockname()))
        self.poller.register(self.PIPE[0], EVENT_READ, self._hear_bell)
        while self.alive:
            self._beat()
            for key, _ in self.poller.select(min(LOOP_SECONDS, self.parking.seconds_left(time.monotonic()))):
                key.data(key.fileobj)
            for connection in self.parking.due(time.monotonic()):
                self.resume(connection)
            if not self.is_parent_alive():
                break
            self.murder_keepalived()
        for connection in self.parking.everybody():
            self.resume(connection)
        self.tpool.shutdown(wait=False)
        with self._lock:
            self.poller.close()
        for listener in self.sockets:
            listener.close()
        wait(self.futures, timeout=self.cfg.graceful_timeout)

    def resume(self, connection: Connection) -> None:
        """Answer a request that was held, now."""
        raise NotImplementedError

    def accept(self, server: Any, listener: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            if len(self._open) >= self.worker_connections:
                self._crowd(f"all {self.worker_connections} places for connections are taken")
                return
            try:
                peer, address = listener.accept()
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._crowd(f"no connection can be taken, {error.strerror}")
                elif error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                    raise
                return
            connection = Connection(self.cfg, peer, address, server)
            self._open.add(connection)
            self.listen_to(connection)

    def listen_to(self, connection: Connection) -> None:
        """The loop waits for the next byte of a connection, whatever it belongs to."""
        with self._lock:
            self.poller.register(connection.sock, EVENT_READ, partial(self.on_client_socket_readable, connection))

    def stop_listening_to(self, connection: Connection) -> bool:
        """The loop takes no notice of a connection; False when it did not anyway."""
        try:
            with self._lock:
                self.poller.unregister(connection.sock)
        except (KeyError, ValueError):
            return False
        return True

    def submit(self, pool: ThreadPoolExecutor, connection: Connection, serve: Serve | None = None) -> None:
        """Let a thread of a pool serve a connection, to which the loop does not listen."""
        connection.init()
        try:
            future = pool.submit(serve or self.handle, connection)
        except RuntimeError:  # the worker ends
            self._drop(connection)
            return
        self._wrap_future(future, connection)

    def _wrap_future(self, future: Any, connection: Connection) -> None:
        future.conn = connection
        self.futures.add(future)
        future.add_done_callback(self.finish_request)

    def finish_request(self, future: Any) -> None:
        """A thread has served a connection: wait for its next request, or close it."""
        self.futures.discard(future)
        connection = future.conn
        try:
            keep = not future.cancelled() and future.result()[0] and self.alive
        except Exception:  # noqa: BLE001 - gunicorn has said it
            keep = False
        if not keep:
            self._drop(connection)
            return
        self.has_answered(connection)
        if HEAD_END in connection.heard:
            self.submit(self.tpool, connection)
            return
        try:
            connection.sock.setblocking(False)
            self.listen_to(connection)
        except (OSError, ValueError, RuntimeError):  # the poller is closed meanwhile
            self._drop(connection)

    def has_answered(self, connection: Connection) -> None:
        """Its next request may take as long to come as on any kept connection."""
        connection.was_answered = True
        connection.silent_since = time.monotonic()

    def murder_keepalived(self) -> None:
        """Close what has been silent for too long, or for longest when somebody waits for a place."""
        now = time.monotonic()
        if now >= self._resume_at:
            self._listen_again()
        if not self._is_crowded and now < self._look_at:
            return
        self._look_at = now + PAUSE_SECONDS
        silent = self._silent()
        late = [one for one in silent if now - one.silent_since > self._patience_seconds(one)]
        if self._is_crowded:
            self._is_crowded = False
            silent.sort(key=lambda connection: connection.silent_since)
            late = late or silent[: max(1, len(silent) // 8)]
            if not late:
                self._pause(now)
        for connection in late:
            self.close_silent(connection)

    def close_silent(self, connection: Connection) -> None:
        """Close a connection that no thread serves; one that went by itself is left."""
        if self.stop_listening_to(connection):
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        self._open.discard(connection)
        connection.close()

    def _crowd(self, why: str) -> None:
        self._is_crowded = True
        if time.monotonic() >= self._complain_at:
            self._complain_at = time.monotonic() + COMPLAINT_SECONDS
            log.warning("Crowded: %s; silent connections are closed, new ones wait", why)

    def _patience_seconds(self, connection: Connection) -> float:
        is_idle = connection.was_answered and not connection.heard
        return float(self.cfg.keepalive) if is_idle else HEAD_SECONDS

    def _silent(self) -> list[Connection]:
        """The connections that nobody serves: those on which the next byte is waited for, and no answer."""
        with self._lock:
            keys = list(self.poller.get_map().values())
        served = (key.data.args[0] for key in keys if isinstance(key.data, partial))
        return [one for one in served if isinstance(one, Connection) and one not in self.parking]

    def _pause(self, now: float) -> None:
        """Look away from the listeners for a moment: they would be ready again at once, with nothing to be done."""
        self._resume_at = now + PAUSE_SECONDS
        with self._lock:
            for listener in self.sockets:
                key = self.poller.get_map().get(listener)
                if key is not None:
                    self._paused.append((listener, key.data))
                    self.poller.unregister(listener)

    def _listen_again(self) -> None:
        with self._lock:
            while self._paused:
                listener, acceptor = self._paused.pop()
                self.poller.register(listener, EVENT_READ, acceptor)

    def _beat(self) -> None:
        """Tell the arbiter that the loop goes on; once in a while, it costs a call of the kernel."""
        now = time.monotonic()
        if now >= self._beat_at:
            self._beat_at = now + LOOP_SECONDS
            self.notify()

    def _ring(self) -> None:
        """Make the loop look around; gunicorn writes into the same pipe when a signal comes."""
        with suppress(BlockingIOError):  # it is full of rings
            os.write(self.PIPE[1], b".")

    def _hear_bell(self, bell: int) -> None:
        with suppress(BlockingIOError):
            os.read(bell, 4096)
