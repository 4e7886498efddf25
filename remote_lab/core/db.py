"""The database: engine, SQLite's settings, read and write transactions. Only edges of the core open them.

SQLite in WAL mode lets readers go on beside one writer. Write transactions begin IMMEDIATE, so that a conflict shows at
their start and not in their middle (a deferred one that read first fails with SQLITE_BUSY_SNAPSHOT at its first
write, whatever the busy timeout), and queue on one lock in the process, because waiting in SQLite's busy handler is
unfair and slow. What they change is durable when they return (synchronous=FULL).

What is no fault of whoever asks (somebody else's lock, a full disk) is DatabaseUnavailable, within seconds: a server
whose requests all wait looks dead. What a start does with a database is in `schema.py`.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session as Transaction

from remote_lab.core.backup import remedy
from remote_lab.core.clock import Clock
from remote_lab.core.waiting import Changes
from remote_lab.errors import DatabaseUnavailable, DatabaseUnusable

BUSY_TIMEOUT_MILLISECONDS = 5_000
"""How long another process may have the database locked: an operator's statement, never one of this process."""
WRITE_WAIT_SECONDS = 10.0
"""How long a write transaction waits for those of this process in front of it, each of which takes milliseconds."""
_LOCKED = "The database is locked by another process, or too slow. Try again in a few seconds."
_REPLACED = "The database was removed or replaced while the server runs. Its operator has to restart it."
_FAULTS: Mapping[int, str] = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_FULL: "The disk of the database is full: nothing can be recorded. Try again when there is room.",
    sqlite3.SQLITE_READONLY: "The database is read-only: nothing can be recorded.",
    sqlite3.SQLITE_IOERR: "The disk of the database fails or is full: nothing can be recorded.",
    sqlite3.SQLITE_CORRUPT: "The database is damaged. The server's operator has to restore a backup.",
    sqlite3.SQLITE_NOTADB: "The database is damaged. The server's operator has to restore a backup.",
    sqlite3.SQLITE_CANTOPEN: "The database cannot be opened.",
    sqlite3.SQLITE_PERM: "The database cannot be opened.",
}
"""What callers hear of SQLite's primary result codes (sqlite.org/rescode.html) that are no defect of ours."""
_URL_EXPECTED = "REMOTE_LAB_DATABASE_URL={!r} cannot be used: expected sqlite:///PATH of a file."
_AFTER_COMMIT = "after commit"
_ON_FAILURE = "on failure"


def after_commit(transaction: Transaction, action: Callable[[], object]) -> None:
    """Do something when the write transaction is on disk, outside of it."""
    transaction.info.setdefault(_AFTER_COMMIT, []).append(action)


def on_failure(transaction: Transaction, undo: Callable[[], object]) -> None:
    """Undo something in memory when the write transaction does not come to pass."""
    transaction.info.setdefault(_ON_FAILURE, []).append(undo)


class Database:
    """One engine and its two kinds of transactions; safe to use from many threads.

    `changes` counts the write transactions, for those who wait for one. `clock` says when something is put on record.
    """

    def __init__(self, url: str) -> None:
        """Take an SQLAlchemy URL; nothing is opened before the first transaction."""
        try:
            self.url = make_url(url)
        except ArgumentError:
            raise DatabaseUnusable(_URL_EXPECTED.format(url)) from None
        if self.url.get_backend_name() != "sqlite" or self.url.database in (None, "", ":memory:"):
            raise DatabaseUnusable(_URL_EXPECTED.format(url))
        self.path = Path(str(self.url.database))
        self._file: tuple[int, int] | None = None
        self._write_problem: str | None = None
        self._write_lock = threading.Lock()
        self.changes = Changes()
        self.clock = Clock()
        self._engine = create_engine(self.url, pool_size=8, max_overflow=-1)
        event.listen(self._engine, "connect", self._prepare_connection)
        event.listen(self._engine, "begin", _begin)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A transaction that sees one state of the database and changes nothing."""
        with _faults_named(), Transaction(self._engine) as transaction:
            yield transaction

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """The only transaction that may change the database at this time; committed when the block ends well.

        What `after_commit` registered runs when it is on disk and the next writer may begin, what `on_failure`
        registered when it is not. DatabaseUnavailable when it cannot be begun or committed.
        """
        engine = self._engine.execution_options(begin="IMMEDIATE")
        with self._turn_to_write(), Transaction(engine, expire_on_commit=False) as transaction:
            try:
                yield transaction
                transaction.commit()
            except BaseException:
                for undo in transaction.info.get(_ON_FAILURE, ()):
                    undo()
                raise
        for action in transaction.info.get(_AFTER_COMMIT, ()):
            action()
        self.changes.happened()

    @contextmanager
    def _turn_to_write(self) -> Iterator[None]:
        """Hold the lock of the writers; a fault in the meantime is remembered until a transaction gets through."""
        if not self._write_lock.acquire(timeout=WRITE_WAIT_SECONDS):
            raise DatabaseUnavailable(_LOCKED)
        try:
            with _faults_named():
                yield
            self._write_problem = None
        except DatabaseUnavailable as fault:
            self._write_problem = fault.detail
            raise
        finally:
            self._write_lock.release()

    def upgrade(self) -> None:
        """Bring the schema to this version's with the shipped migrations; DatabaseUnusable when that cannot be done."""
        # Commands that only read are quicker without alembic.
        from alembic import command
        from alembic.config import Config as AlembicConfig
        from alembic.util import CommandError

        settings = AlembicConfig()
        settings.set_main_option("script_location", import_module("remote_lab.migrations").__path__[0])
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._engine.execution_options(begin="IMMEDIATE").begin() as connection:
                settings.attributes["connection"] = connection
                command.upgrade(settings, "head")
                # Where there is nothing to upgrade, only this shows that the file takes no writes.
                connection.execute(text("UPDATE alembic_version SET version_num = version_num"))
        except (SQLAlchemyError, CommandError, OSError) as error:
            raise DatabaseUnusable(self._refusal(error)) from error

    def _refusal(self, error: Exception) -> str:
        if isinstance(error, DBAPIError):
            why, code = error.orig, getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                return f"The database {self.path} is locked by another process: `fuser -v {self.path}` shows which."
            if code not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
                return f"The database {self.path} cannot be written: {why}. See its folder, its owner and its disk."
        else:
            why = error
        return f"The database {self.path} cannot be used: {why}. {remedy(self.path)}"

    def check(self) -> None:
        """Raise DatabaseUnavailable or SQLAlchemyError when it does not answer, or did not take the last write."""
        self._check_file()
        with self.read() as transaction:
            transaction.execute(text("SELECT 1 FROM alembic_version"))
        if (problem := self._write_problem) is not None:
            raise DatabaseUnavailable(problem)

    def dispose(self) -> None:
        """Close the connections that lie idle in the pool."""
        self._engine.dispose()

    def _prepare_connection(self, connection: Any, _record: Any) -> None:
        self._check_file()
        connection.isolation_level = None  # sqlite3 must not begin transactions of its own: `_begin` does
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"busy_timeout={BUSY_TIMEOUT_MILLISECONDS}",
        ):
            connection.execute(f"PRAGMA {pragma}").close()
        if self._file is None:
            self._file = _identity(self.path)

    def _check_file(self) -> None:
        """SQLite would begin anew where the file has gone, while older connections go on with what has no name."""
        if self._file is not None and self._file != _identity(self.path):
            raise DatabaseUnavailable(_REPLACED)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def _faults_named() -> Iterator[None]:
    """Raise DatabaseUnavailable for what is no defect of ours."""
    try:
        yield
    except DBAPIError as error:
        if (fault := fault_of(error)) is not None:
            raise DatabaseUnavailable(fault) from error
        raise


def fault_of(error: DBAPIError) -> str | None:
    """What is wrong with the database, as a sentence; None when it is rather the statement."""
    code = getattr(error.orig, "sqlite_errorcode", None)  # Python 3.11
    return None if code is None else _FAULTS.get(code & 0xFF)


def _begin(connection: Any) -> None:
    connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('begin', 'DEFERRED')}")
