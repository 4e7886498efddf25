"""Copies of the database: made while it is in use, complete, on disk, never over another file; and put in its place.

The server makes some by itself, into the folder `backups` beside the database: one before each change of the schema,
and one a day. Whether a database can be used is decided in `schema.py`.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from remote_lab.errors import DatabaseUnusable

FOLDER = "backups"
KEPT = 5
"""How many of its own copies a server keeps."""
EVERY_SECONDS = 24 * 3600.0
_PREFIX = "auto-"
_COMPANIONS = ("-wal", "-shm")
"""What SQLite keeps beside a database (sqlite.org/tempfiles.html); of another database they would damage it."""


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


def newest(database: Path) -> Path | None:
    """The last copy in the folder for them, whoever made it."""
    try:
        return max((one for one in (database.parent / FOLDER).glob("*.sqlite3")), key=_made_at, default=None)
    except OSError:
        return None


def remedy(database: Path) -> str:
    """What can be done about a database that cannot be used, as sentences for its operator."""
    empty = f"or move it away, with {database.name}-wal and {database.name}-shm, to start empty."
    last = newest(database)
    if last is None:
        return f"Nothing was changed: restore a backup with `remote-lab db restore FILE`, {empty}"
    made = datetime.fromtimestamp(_made_at(last), UTC)
    return (
        f"Nothing was changed. The newest backup is of {made:%Y-%m-%d %H:%M} UTC: "
        f"restore it with `remote-lab db restore {last}`, {empty}"
    )


def is_due(database: Path) -> bool:
    """Whether the last copy is older than a day; one of the future, when the clock went back, counts as old."""
    last = newest(database)
    return last is None or not 0 <= time.time() - _made_at(last) < EVERY_SECONDS


def back_up_by_itself(database: Path, why: str) -> Path:
    """Make a copy in the folder for them and remove the oldest of those made so; DatabaseUnusable."""
    folder = database.parent / FOLDER
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        target = folder / f"{_PREFIX}{datetime.now(UTC):%Y%m%dT%H%M%S.%f}Z-{why}.sqlite3"
        back_up(database, target)
        for old in sorted(folder.glob(f"{_PREFIX}*.sqlite3"), key=_made_at)[:-KEPT]:
            old.unlink(missing_ok=True)
        return target
    except OSError as error:
        raise DatabaseUnusable(f"No backup can be made in {folder}: {error.strerror}.") from error


def put_in_place(backup: Path, database: Path) -> Path | None:
    """Replace a database that nobody has open by a copy of a backup; returns the name of what was there before.

    1. The backup is copied beside the database and checked.
    2. What is there gets a second name, together with its companions, and is lost at no moment.
    3. The companions go: what they hold belongs to the old database and would be written into the new one.
    4. The copy takes the name of the database.

    Raises DatabaseUnusable; until the last step the old one is what a server would start on.
    """
    before: Path | None = None
    try:
        database.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(prefix=".restore-", dir=database.parent) as folder:
            copy = Path(folder) / database.name
            back_up(backup, copy)
            if database.exists():
                before = _second_name(database)
            for companion in _COMPANIONS:
                Path(f"{database}{companion}").unlink(missing_ok=True)
            if os.geteuid() == 0:
                owner = database.parent.stat()
                shutil.chown(copy, owner.st_uid, owner.st_gid)
            copy.replace(database)
        _sync(database.parent)
    except OSError as error:
        raise DatabaseUnusable(
            f"{backup} cannot be put in the place of {database}: {error.strerror} ({error.filename})."
        ) from error
    return before


def _second_name(database: Path) -> Path:
    before = Path(f"{database}.replaced-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}Z")
    for companion in ("", *_COMPANIONS):
        source = Path(f"{database}{companion}")
        if source.exists():
            os.link(source, f"{before}{companion}")
    _sync(database.parent)
    return before


def _made_at(copy: Path) -> float:
    return copy.stat().st_mtime


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
