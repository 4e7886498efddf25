"""What the kernel says of processes, locks and sockets: facts that go away with whom they are about."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

LOOPBACK = "127.0.0.1"
POLL_SECONDS = 0.02
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LISTENS = "0A"
"""State of a listening socket in /proc/net/tcp, proc_net_tcp.txt of Linux."""


class Lock:
    """A flock on a file: gone with the last process that has it, however that ends. Passed on by fork, not by exec."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def take(self, seconds: float = 0.0) -> bool:
        """Take it, unless it is held already; wait for it at most so long; False when somebody else has it.

        The file is made. OSError when it cannot be, because its folder is not there for example.
        """
        if self._file is not None:
            return True
        deadline = time.monotonic() + seconds
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_there(file):
                    self._file = file
                    return True
            except BlockingIOError:
                pass
            finally:
                if self._file is None:  # after Ctrl-C as well: nobody else could close it
                    os.close(file)
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)

    def _is_there(self, file: int) -> bool:
        """The folder may have been removed, and made again, by the one who had the lock."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(file))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let go of it, if it is held."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def is_locked(path: Path) -> bool:
    """Whether somebody has a lock on a file; False also when there is no such file or it may not be read."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def wait_until(condition: Callable[[], object], seconds: float) -> bool:
    """Look again and again until something holds; False when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def start_time(pid: int) -> int | None:
    """When a process began, in ticks since boot; with its pid that names it for good. None when it has ended."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in ("Z", "X") else int(fields[19])


def children(parent: int) -> list[int]:
    """The pids of all children of a process."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return [pid for pid in pids if (fields := _stat(pid)) is not None and int(fields[1]) == parent]


def _stat(pid: int) -> list[str] | None:
    """/proc/PID/stat from its third field on: state, parent, ..., start time as the twentieth (proc(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def listens(pid: int, port: int) -> bool:
    """Whether the socket that listens on a port of 127.0.0.1 belongs to a process."""
    address = f"{socket.htonl(int.from_bytes(socket.inet_aton(LOOPBACK))):08X}:{port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{line[9]}]" for line in lines if line[1] == address and line[3] == _LISTENS}
    try:
        files = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
    return any(_target(file) in sockets for file in files)


def _target(file: Path) -> str:
    try:
        return str(file.readlink())
    except OSError:
        return ""  # closed meanwhile


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has at this moment."""
    with socket.create_server((LOOPBACK, 0)) as server:
        return int(server.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a port of 127.0.0.1 can be listened on."""
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError:
        return False
    return True


def adopt_orphans() -> None:
    """From now on, processes below this one whose parent ends become children of this one (prctl(2))."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def ends_with(parent: int) -> Callable[[], None]:
    """What a child does before its exec to get SIGTERM when this process, `parent`, ends, and to heed Ctrl-C's signal.

    Signals that this process ignores would be ignored by the child as well.
    """

    def prepare() -> None:
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(one, signal.SIG_DFL)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def _prctl(option: int, value: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), *(ctypes.c_ulong(0),) * 3):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
