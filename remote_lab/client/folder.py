"""Files that belong to one client, for its user's eyes only: login keys and inventories."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path


class PrivateFolder:
    """A folder that is made when it is needed, readable by its user alone."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._key: tuple[str, Path] | None = None
        self._keys = 0

    @property
    def path(self) -> Path:
        """The folder, made now if it is not there yet."""
        if self._path is None:
            self._path = Path(tempfile.mkdtemp(prefix="remote-lab-client-"))
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
        path, self._path, self._key = self._path, None, None
        if path is not None:
            shutil.rmtree(path, ignore_errors=True)
