"""A copy of the database while it is in use: complete, on disk, and never over another file."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from pathlib import Path

from remote_lab.errors import DatabaseUnusable


def back_up(database: Path, target: Path) -> int:
    """Copy a database to a new file that only its owner can read; returns its size in bytes.

    1. SQLite's online backup copies one state of it beside the target; a server goes on meanwhile
       (https://www.sqlite.org/backup.html).
    2. The copy is checked, made a single file, and written through to the disk.
    3. It gets its name, unless something has that name already.

    Raises DatabaseUnusable; nothing is left then.
    """
    if not database.is_file():
        raise DatabaseUnusable(f"There is nothing to back up: {database} does not exist.")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
            copy = Path(folder) / target.name
            _copy(database, copy)
            _sync(copy)
            os.close(os.open(target, os.O_CREAT | os.O_EXCL, 0o600))
            copy.replace(target)
        _sync(target.parent)
        return target.stat().st_size
    except FileExistsError:
        raise DatabaseUnusable(f"{target} exists, and a backup never replaces a file. Choose another name.") from None
    except sqlite3.Error as error:
        raise DatabaseUnusable(f"The database {database} cannot be backed up: {error}.") from error
    except OSError as error:
        raise DatabaseUnusable(
            f"The backup {target} cannot be written: {error.strerror} ({error.filename})."
        ) from error


def _copy(database: Path, copy: Path) -> None:
    source = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
    copy.touch(mode=0o600)
    backup = sqlite3.connect(copy)
    try:
        source.backup(backup)
        backup.execute("PRAGMA journal_mode=DELETE")
        (verdict,) = backup.execute("PRAGMA quick_check").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(f"the copy is damaged: {verdict}")
    finally:
        backup.close()
        source.close()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
