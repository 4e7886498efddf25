"""Files that belong to one process, for its user's eyes only: login keys and inventories.

A folder is locked as long as somebody uses it, which the kernel ends with the process. So what was left by one that
got no chance to clean up (`kill -9`) can be told from what is in use, and goes when the next folder is made.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import threading
from pathlib import Path

PREFIX = "remote-lab-client-"


class PrivateFolder:
    """A folder that is made when it is needed, readable by its user alone."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._lock = -1
        self._key: tuple[str, Path] | None = None
        self._keys = 0
        self._removing = threading.Lock()

    @property
    def path(self) -> Path:
        """The folder, made now if it is not there yet."""
        if self._path is None:
            remove_leftovers(Path(tempfile.gettempdir()))
            self._path, self._lock = _make()
        return self._path

    def keep_key(self, key: str) -> Path:
        """Return a file with this key; the same file as long as the key is the same."""
        if self._key is not None and self._key[0] == key and self._key[1].exists():
            return self._key[1]
        self._keys += 1
        path = self.path / f"ssh-key-{self._keys}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(key)
        self._key = (key, path)
        return path

    def remove(self) -> None:
        """Remove the folder with everything in it."""
        with self._removing:
            path, self._path, self._key = self._path, None, None
            if path is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(self._lock)


def remove_leftovers(place: Path) -> None:
    """Remove the folders of this user's processes that are gone; others, and what cannot be removed, stay."""
    for folder in place.glob(f"{PREFIX}*"):
        # Not a FIFO, nor where a symbolic link points to.
        with contextlib.suppress(OSError):
            lock = os.open(folder, _AS_LOCK)
            try:
                if _is_mine_alone(os.fstat(lock)):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)
            finally:
                os.close(lock)


_AS_LOCK = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _make() -> tuple[Path, int]:
    """Return a new folder, and its lock, which is to be closed after it was removed."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX))
        # Before it is locked, another process may take it for a leftover.
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(path, _AS_LOCK)
            fcntl.flock(lock, fcntl.LOCK_SH)
            if path.exists():
                return path, lock
            os.close(lock)


def _is_mine_alone(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o077
