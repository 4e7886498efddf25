"""What a start does with the database before anything else: is it one of ours, whole, and of which version?

A database that cannot be used is refused with the reason, the newest backup and nothing changed. One of an earlier
version is copied and brought to this version's schema. What happens to a database in use is in `db.py`.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from remote_lab.core import backup
from remote_lab.core.db import Database
from remote_lab.core.models import Base
from remote_lab.errors import DatabaseUnusable

log = logging.getLogger(__name__)

_MAGIC = b"SQLite format 3\0"
"""The first bytes of every SQLite database but an empty one (sqlite.org/fileformat2.html, 1.3)."""


@dataclass(frozen=True)
class Found:
    """What a file is, as a database of ours."""

    problem: str | None = None
    """Why it cannot be used, as a clause."""
    revision: str | None = None
    """The version of its schema; None: it has nothing in it."""

    @property
    def is_old(self) -> bool:
        """Whether the next start upgrades it."""
        return self.revision != _head()


def bring_up_to_date(database: Database) -> None:
    """Make a database that is whole one of this version; DatabaseUnusable, with nothing changed, when it is not.

    1. Every page and index is looked at: 0.1 s for 100 MB that are in memory.
    2. One of an earlier version is copied, so that the upgrade can be taken back; any other one when the last copy is
       older than a day.
    3. The migrations run in one transaction.
    """
    path = database.path
    found = examine(path)
    if found.problem is not None:
        raise DatabaseUnusable(f"The database {path} cannot be used: {found.problem}. {backup.remedy(path)}")
    if found.revision is None:
        if (last := backup.newest(path)) is not None:
            log.warning("The queue begins empty: there is no database %s. The newest backup is %s", path, last)
    elif found.is_old:
        log.info("Upgrading the database; as it was: %s", backup.back_up_by_itself(path, f"schema-{found.revision}"))
    elif backup.is_due(path):
        back_up_daily(path)
    database.upgrade()


def back_up_daily(path: Path) -> None:
    """Copy the database; a copy that cannot be made is told in the log and stops nobody."""
    try:
        log.info("Backed up the database: %s", backup.back_up_by_itself(path, "daily"))
    except DatabaseUnusable as error:
        log.warning("There is no backup of today: %s", error)


def examine_backup(path: Path) -> None:
    """Raise DatabaseUnusable unless a file is a database of ours that a server could start on."""
    found = examine(path)
    if found.problem is None and found.revision is None:
        found = Found("there is no such file" if not path.exists() else "it has nothing in it")
    if found.problem is not None:
        raise DatabaseUnusable(f"{path} is no backup that can be restored: {found.problem}. Nothing was changed.")


def examine(path: Path) -> Found:
    """Say what a file is; it is only read. One that does not exist has nothing in it."""
    try:
        with path.open("rb") as file:
            beginning = file.read(len(_MAGIC))
        if beginning != _MAGIC:
            return _not_sqlite(path, beginning)
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            return _examine(connection)
    except FileNotFoundError:
        return Found()
    except OSError as error:
        return Found(f"it cannot be read: {error.strerror}")
    except sqlite3.OperationalError as error:
        return Found(f"it cannot be read: {error}")
    except sqlite3.Error as error:
        return Found(f"it is damaged: {error}")


def _not_sqlite(path: Path, beginning: bytes) -> Found:
    if beginning:
        return Found("it is no SQLite database")
    return Found(None if backup.newest(path) is None else "it is an empty file, and there are backups of more")


def _examine(connection: sqlite3.Connection) -> Found:
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        return Found(f"it is damaged: {' '.join(verdict.split())}")
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:
        return Found()
    row = None
    if "alembic_version" in tables:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    if row is None:
        return Found(f"it is a database of something else, with the table {min(tables)}")
    revision = str(row[0])
    if revision not in _known():
        newer = f"a newer version made it (schema {revision}, this version has {_head()}); start that version"
        return Found(newer, revision)
    missing = {table.name for table in Base.metadata.sorted_tables} - tables if revision == _head() else set()
    if missing:
        return Found(f"it lacks the table{'s' if len(missing) > 1 else ''} {', '.join(sorted(missing))}", revision)
    return Found(revision=revision)


def _known() -> list[str]:
    """The versions of the schema, the first one first: the names of the migrations begin with them."""
    folder = Path(import_module("remote_lab.migrations").__path__[0])
    return sorted(one.name[:4] for one in (folder / "versions").glob("[0-9]*.py"))


def _head() -> str:
    return _known()[-1]
