"""The folder of a run: its files, its locks, and the list of all runs of this user that may have left something.

What is in it, beside what its owner puts there:

    obtain.lock     held by whoever starts or stops the server of the run
    guard.lock      held by the guard for its whole life, and by nobody when that was killed
    requests        a FIFO; one byte asks the guard to end
    server.json     what the guard found or started; failed.json: why it did not
    session.json    the session of the run
    users/          who uses the server, a file for each
    state/          the state folder of a private server; server.log and guard.log
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import socket
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from remote_lab.local.kernel import Lock, is_locked, start_time

OWN_NAMES = ("server.json", "failed.json", "session.json", "server.log", "guard.log", "requests", "users", "state")


class Run:
    """One folder of a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.state_dir = self.folder / "state"
        self.server_log = self.folder / "server.log"
        self.guard_log = self.folder / "guard.log"
        self.requests = self.folder / "requests"
        self._guard_lock = self.folder / "guard.lock"
        self._users = self.folder / "users"

    def make(self) -> None:
        """Make the folder for this user alone; PermissionError when it is somebody else's."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.is_mine():
            raise PermissionError(f"The folder of the run, {self.folder}, has to belong to user {os.geteuid()}.")
        self.folder.chmod(0o700)

    def is_mine(self) -> bool:
        """Whether the folder is this user's; OSError when there is none."""
        return not self.folder.is_symlink() and self.folder.stat().st_uid == os.geteuid()

    def obtain_lock(self) -> Lock:
        """What whoever starts or stops the server takes first."""
        return Lock(self.folder / "obtain.lock")

    def guard_lock(self) -> Lock:
        """What the guard has for its life."""
        return Lock(self._guard_lock)

    def is_guarded(self) -> bool:
        """Whether a guard lives, or somebody cleans up what one left."""
        return is_locked(self._guard_lock)

    def is_unguarded_leftover(self) -> bool:
        """Whether a guard was here and was killed."""
        return self._guard_lock.exists() and not self.is_guarded()

    def found(self) -> dict[str, Any] | None:
        """What the guard found or started: url, joined, provider."""
        return read_json(self.folder / "server.json")

    def note_found(self, url: str, joined: bool, provider: str) -> None:
        """See `found`."""
        write_json(self.folder / "server.json", {"url": url, "joined": joined, "provider": provider})

    def failure(self) -> dict[str, Any] | None:
        """Why there is no server: sentence, labs_can_run."""
        return read_json(self.folder / "failed.json")

    def note_failure(self, sentence: str, labs_can_run: bool) -> None:
        """See `failure`."""
        write_json(self.folder / "failed.json", {"sentence": sentence, "labs_can_run": labs_can_run})

    def add_user(self) -> Path:
        """This process uses the server, until the file that is returned is gone or the process is."""
        self._users.mkdir(mode=0o700, exist_ok=True)
        user = self._users / f"{os.getpid()}-{start_time(os.getpid())}-{secrets.token_hex(4)}"
        user.touch(mode=0o600)
        return user

    def has_users(self) -> bool:
        """Whether a living process uses the server."""
        users = (path.name.split("-") for path in self._users.glob("*"))
        return any(str(start_time(int(pid))) == started for pid, started, _ in users)

    def ask_to_end(self) -> None:
        """Ask the guard to take everything down; nothing happens when it does not live."""
        with suppress(OSError):  # no FIFO, or nobody reads: there is no guard
            request = os.open(self.requests, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(request, b".")
            finally:
                os.close(request)

    def remove(self) -> None:
        """Remove the folder with everything in it: at once for those who look at it meanwhile."""
        doomed = self.folder.with_name(f".{self.folder.name}.{secrets.token_hex(4)}")
        self.folder.rename(doomed)
        shutil.rmtree(doomed)

    def forget(self) -> None:
        """Remove what was made here; the folder stays when there is anything else in it."""
        for name in (*OWN_NAMES, "guard.lock", "obtain.lock"):
            path = self.folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()


def note_session(run_dir: Path, url: str, session_id: str) -> None:
    """Write down the session of a run, so that it ends with the run, however that ends."""
    write_json(run_dir / "session.json", {"url": url, "session_id": session_id})


def noted_session(run_dir: Path) -> tuple[str, str] | None:
    """URL of the server and id of the session that was written down; None when none was."""
    match read_json(run_dir / "session.json"):
        case {"url": str(url), "session_id": str(session_id)}:
            return url, session_id
    return None


class Runs:
    """The list of runs of this user on this host, in the home folder that `environment` names.

    Only entries that nobody else can have written are believed: what they name is removed.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        home = Path(environment["HOME"]) if environment.get("HOME") else Path.home()
        self.folder = home / ".local" / "state" / "remote-lab-runs"

    def add(self, run: Run, is_joined: bool) -> None:
        """Enter a run, which this process cares for; OSError when it cannot be."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_mine(self.folder, stat.S_ISDIR):
            raise PermissionError(f"{self.folder} has to belong to user {os.geteuid()} alone")
        keeper = {"pid": os.getpid(), "started": start_time(os.getpid())}
        write_json(
            self._entry(run), {"run_dir": str(run.folder), "host": socket.gethostname(), "joined": is_joined, **keeper}
        )

    def remove(self, run: Run) -> None:
        """Nothing of it is left."""
        with suppress(OSError):  # the next run looks, and finds nothing
            self._entry(run).unlink(missing_ok=True)

    def leftovers(self) -> Iterator[Run]:
        """The runs whose guard was killed."""
        if not _is_mine(self.folder, stat.S_ISDIR):
            return
        for entry in self.folder.glob("*.json"):
            data = read_json(entry) if _is_mine(entry, stat.S_ISREG) else None
            match data:
                case {"run_dir": str(folder), "host": host, "pid": int(pid), "started": started, "joined": joined}:
                    run = Run(Path(folder))
                case _:
                    continue
            if host != socket.gethostname() or entry != self._entry(run):
                continue
            # By its process as well: the folder of a run that goes on may have been removed, with its lock.
            if run.is_guarded() or (started is not None and start_time(pid) == started):
                continue
            if joined and not run.folder.exists():
                self.remove(run)
            elif not run.folder.exists() or _is_mine(run.folder, stat.S_ISDIR):
                yield run

    def _entry(self, run: Run) -> Path:
        return self.folder / f"{hashlib.sha256(str(run.folder).encode()).hexdigest()[:24]}.json"


def _is_mine(path: Path, is_kind: Any) -> bool:
    """Whether it is of a kind, belongs to this user and nobody else may write it."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return bool(is_kind(status.st_mode)) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a file for this user alone, whole or not at all."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "w") as stream:
            json.dump(data, stream)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)  # it is there when this was interrupted, by Ctrl-C or a full disk


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None when there is no such file, or something else in it."""
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None
