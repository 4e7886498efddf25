"""gunicorn's threaded worker, made fit for a host that runs out: of open files, of threads, of places for connections.

All threads are started at once, so that no request ever needs another. Connections never take the open files that labs
and the database need. When all places are taken, the connection that has been silent for longest gives way; when none
is silent, new ones wait in the kernel's queue, and nobody spins. What is said on a connection is not known here.
"""

from __future__ import annotations

import errno
import logging
import resource
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from selectors import EVENT_READ
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

from remote_lab.errors import SettingInvalid

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 1000
OWN_FILES = 64
FILES_PER_THREAD = 8
"""What a request may open beside its connection: database, parts of an upload, pipes of netlab."""
HEAD_SECONDS = 60.0
"""For the head of a request, once a connection is there or has begun it."""
PAUSE_SECONDS = 0.5
START_SECONDS = 30.0
COMPLAINT_SECONDS = 10.0
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

    def set_timeout(self) -> None:
        super().set_timeout()
        self.silent_since = time.monotonic()


class CrowdedWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Takes connections while there is room; relies on gunicorn 23 to call `murder_keepalived` after all events."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._is_crowded = False
        self._paused: list[tuple[socket.socket, partial[None]]] = []
        self._resume_at = self._look_at = self._complain_at = 0.0

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

    def accept(self, server: Any, listener: socket.socket) -> None:
        if self.nr_conns >= self.worker_connections - 1:  # at its limit gunicorn looks at nothing any more
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
        self.nr_conns += 1
        with self._lock:
            self.poller.register(peer, EVENT_READ, partial(self.on_client_socket_readable, connection))

    def murder_keepalived(self) -> None:
        """Close what has been silent for too long, or for longest when somebody waits for a place."""
        now = time.monotonic()
        if now >= self._resume_at:
            self._listen_again()
        if not self._is_crowded and now < self._look_at:
            return
        self._look_at = now + PAUSE_SECONDS
        silent = sorted(self._silent(), key=lambda connection: connection.silent_since)
        late = [one for one in silent if now - one.silent_since > self._patience_seconds(one)]
        if self._is_crowded:
            self._is_crowded = False
            late = late or silent[: max(1, len(silent) // 8)]
            if not late:
                self._pause(now)
        for connection in late:
            self._close(connection)

    def _crowd(self, why: str) -> None:
        self._is_crowded = True
        if time.monotonic() >= self._complain_at:
            self._complain_at = time.monotonic() + COMPLAINT_SECONDS
            log.warning("Crowded: %s; silent connections are closed, new ones wait", why)

    def _patience_seconds(self, connection: Connection) -> float:
        is_idle = connection.initialized and not connection.heard
        return float(self.cfg.keepalive) if is_idle else HEAD_SECONDS

    def _silent(self) -> Iterator[Connection]:
        """The connections that no thread serves: those on which the next byte is waited for."""
        with self._lock:
            keys = list(self.poller.get_map().values())
        for key in keys:
            if key.data.args and isinstance(key.data.args[0], Connection):
                yield key.data.args[0]

    def _close(self, connection: Connection) -> None:
        with self._lock:
            try:
                self.poller.unregister(connection.sock)
            except (KeyError, ValueError):
                return  # it went by itself
            if connection in self._keep:
                self._keep.remove(connection)
        self.nr_conns -= 1
        connection.close()

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
