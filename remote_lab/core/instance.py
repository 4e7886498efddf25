"""One server for each state folder, and who that is.

Two locks, because a server is two processes. The arbiter holds `server.lock` for its whole life: who wants to start and
cannot take it reads `server.json` for the sentence. The worker holds `worker.lock` while it may touch the database and
labs: it outlives an arbiter that was killed by up to a second, and the next server waits for it. Both are flock locks:
they go with their process, however it ends.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from remote_lab import __version__
from remote_lab.errors import InstanceRunning, SettingInvalid

WORKER_WAIT_SECONDS = 30.0
LOOK_SECONDS = 0.5
"""More than enough for somebody who only looks to let go of a lock."""


@dataclass(frozen=True)
class Holder:
    """The server that has a state folder."""

    pid: int
    user: str
    host: str
    address: str
    version: str
    started_at: str

    @classmethod
    def this_process(cls, address: str) -> Holder:
        """This process, serving on `address` (`host:port`)."""
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return cls(os.getpid(), getpass.getuser(), socket.gethostname(), address, __version__, now)


def find_holder(state_dir: Path) -> Holder | None:
    """The server that has a state folder; None when none has it. Nothing is created.

    InstanceRunning when somebody has it who has not said who it is, SettingInvalid when this user may not look.
    """
    try:
        lock = os.open(state_dir / "server.lock", os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError:
        raise SettingInvalid("REMOTE_LAB_STATE_DIR", str(state_dir), "a folder that this user can read") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        deadline = time.monotonic() + LOOK_SECONDS
        while (holder := _read_holder(state_dir)) is None:  # it takes the lock first, then says who it is
            if time.monotonic() > deadline:
                raise InstanceRunning(f"A server that has not said who it is has {state_dir}. Try again.") from None
            time.sleep(LOOK_SECONDS / 10)
        return holder
    finally:
        os.close(lock)
    return None


def _read_holder(state_dir: Path) -> Holder | None:
    try:
        return Holder(**json.loads((state_dir / "server.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


class Instance:
    """The locks of one state folder; SettingInvalid when this user cannot have it."""

    def __init__(self, state_dir: Path) -> None:
        try:
            state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            writable = os.access(state_dir, os.W_OK)
        except OSError:
            writable = False
        if not writable:
            raise SettingInvalid("REMOTE_LAB_STATE_DIR", str(state_dir), "a folder that this user can create and write")
        self._state_dir = state_dir
        self._metadata = state_dir / "server.json"
        self._server_lock = FileLock(state_dir / "server.lock")

    def take(self, address: str) -> None:
        """Be the server of this state folder until `give_back()`; InstanceRunning says who is it already."""
        try:
            self._server_lock.acquire(timeout=LOOK_SECONDS)
        except Timeout:
            raise InstanceRunning(self._sentence()) from None
        self._metadata.write_text(json.dumps(asdict(Holder.this_process(address)), indent=1) + "\n")

    def give_back(self) -> None:
        """Let the next server have it."""
        self._metadata.unlink(missing_ok=True)
        self._server_lock.release()

    @contextmanager
    def worker(self) -> Iterator[None]:
        """Be the process that works on the state; waits up to 30 s for an earlier worker to end.

        InstanceRunning when it does not.
        """
        lock = FileLock(self._state_dir / "worker.lock")
        try:
            lock.acquire(timeout=WORKER_WAIT_SECONDS)
        except Timeout:
            raise InstanceRunning(
                f"The worker of an earlier server still uses {self._state_dir} after {WORKER_WAIT_SECONDS:.0f} s. "
                f"Find it with 'fuser {lock.lock_file}' and end it."
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _sentence(self) -> str:
        holder = _read_holder(self._state_dir)
        if holder is None:
            return f"Another server uses {self._state_dir}. Set REMOTE_LAB_STATE_DIR to run a second one."
        return (
            f"Another server uses {self._state_dir}: pid {holder.pid} of {holder.user} on {holder.host}, "
            f"http://{holder.address}, version {holder.version}, started {holder.started_at}. "
            f"Stop it with 'kill {holder.pid}', or set REMOTE_LAB_STATE_DIR to run a second one."
        )
