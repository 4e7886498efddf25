"""What the processes of one xdist run share, as files in its folder, and whose turn it is to use the session.

The folder is made by the first worker that finds a lab test and removed by the controller; runs without lab tests
have none. `place_of_session` in it belongs to `remote_lab.local`.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

_log = logging.getLogger("remote_lab.testing")

TESTS = "tests.json"
"""Which tests need a lab; written by workers when they have collected."""
SESSION = "session.json"
"""The session of the run, `remote_lab.local.note_session`; written by the worker that has opened it."""


def workerinput(config: pytest.Config) -> dict[str, Any]:
    """Return what the controller told this worker, with our `remote_lab_...` in it."""
    return cast(Any, config).workerinput  # type: ignore[no-any-return]  # xdist puts it there


def make_folder(folder: Path) -> None:
    """Make a folder for this user alone; raise PermissionError when somebody else has put one there."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise PermissionError(f"{folder} is not this run's own folder.") from None


def write(folder: Path, name: str, content: Mapping[str, Any]) -> None:
    """Write a file as a whole, so that nobody reads half of it."""
    draft = folder / f"{name}.{os.getpid()}"
    draft.write_text(json.dumps(content))
    draft.replace(folder / name)


def read(folder: Path, name: str) -> dict[str, Any] | None:
    """Return what was written; None when nothing was."""
    try:
        content: dict[str, Any] = json.loads((folder / name).read_text())
    except FileNotFoundError:
        return None
    return content


def place_of_session(folder: Path) -> Path:
    """Return the folder for session and server of the run: one of its own, because it goes with the server."""
    return folder / "session"


@contextmanager
def turn(folder: Path, worker: str) -> Iterator[bool]:
    """Wait until no other worker uses the session; the value is True when the one before died while it did.

    The kernel gives the lock back when its holder is gone. All lab tests are sent to one worker, so there is a wait
    with `--dist each` only, or when a test asks for its lab by `request.getfixturevalue`.
    """
    with (folder / "turn").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("%s waits until another worker is done with its lab tests", worker)
            fcntl.flock(lock, fcntl.LOCK_EX)
        holder = folder / "holder"
        predecessor_died = holder.exists()
        holder.write_text(worker)
        try:
            yield predecessor_died
        finally:
            holder.unlink(missing_ok=True)
