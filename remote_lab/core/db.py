"""The database: engine, SQLite's settings, read and write transactions. Only edges of the core open them.

SQLite in WAL mode lets readers go on beside one writer. Write transactions begin IMMEDIATE, so that a conflict shows at
their start and not in their middle (a deferred one that read first fails with SQLITE_BUSY_SNAPSHOT at its first
write, whatever the busy timeout), and queue on one lock in the process, because waiting in SQLite's busy handler is
unfair and slow. What they change is durable when they return (synchronous=FULL), and known to those who keep some of it
in memory (`follow`, see `witness.py`).

What is no fault of whoever asks (somebody else's lock, a full disk) is DatabaseUnavailable, within seconds: a server
whose requests all wait looks dead. What a start does with a database is in `schema.py`.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Connection, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session as Transaction

from remote_lab.core.backup import remedy
from remote_lab.core.clock import Clock
from remote_lab.core.waiting import Changes
from remote_lab.core.witness import Follower, Witness
from remote_lab.errors import DatabaseUnavailable, DatabaseUnusable

BUSY_TIMEOUT_MILLISECONDS = 5_000
"""How long another process may have the database locked: an operator's statement, never one of this process."""
WRITE_WAIT_SECONDS = 10.0
"""How long a write transaction waits for those of this process in front of it, each of which takes milliseconds."""
WAL_BYTES = 8 * 2**20
"""What is left of the write-ahead log after a reader that was open for long (a backup) let it grow; SQLite itself
begins anew at half of it (sqlite.org/wal.html, 1000 pages)."""
_read_json = lru_cache(8)(json.loads)
"""Devices of the labs that are asked for again and again; who reads a column changes nothing of what it holds."""
READER_CACHE_KIB = 256
"""Pages that a connection which only reads keeps. It forgets them when another has written (SQLite's pager.c,
pagerBeginReadTransaction), so more of them are memory and no speed. The writer has SQLite's own 2 MiB.
"""
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

    `changes` counts the write transactions that changed something, for those who wait for one. `clock` says when
    something is put on record.
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
        self._witness = Witness(self.path)
        # The one that was used last: its statements are prepared and its pages at hand.
        self._engine = create_engine(
            self.url, pool_size=8, max_overflow=-1, pool_use_lifo=True, json_deserializer=_read_json
        )
        event.listen(self._engine, "connect", _keep_few_pages)
        # One connection: what is not written through it was written by somebody else.
        self._writer = create_engine(self.url, pool_size=1, max_overflow=0, json_deserializer=_read_json)
        for engine, begin in ((self._engine, _begin), (self._writer, self._begin_to_write)):
            event.listen(engine, "connect", self._prepare_connection)
            event.listen(engine, "begin", begin)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A transaction that sees one state of the database and changes nothing."""
        with _faults_named(), Transaction(self._engine) as transaction:
            yield transaction

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """The only transaction that may change the database at this time; committed when the block ends well.

        When it is on disk the followers know of it before the next writer may begin, and what `after_commit` registered
        runs then. What `on_failure` registered runs when it is not. DatabaseUnavailable when it cannot be begun or
        committed.
        """
        with self._turn_to_write(), self._witnessed(), Transaction(self._writer, expire_on_commit=False) as transaction:
            try:
                yield transaction
                transaction.flush()
                has_changed = self._witness.prepare()
                transaction.commit()
            except BaseException:
                for undo in transaction.info.get(_ON_FAILURE, ()):
                    undo()
                raise
            self._witness.publish()
        self._witness.wake()
        for action in transaction.info.get(_AFTER_COMMIT, ()):
            action()
        if has_changed:
            self.changes.happened()

    def follow(self, follower: Follower) -> None:
        """Let somebody keep in memory what is in the database; to be called before the database is used."""
        self._witness.followers.append(follower)

    def is_current(self) -> bool:
        """Whether `look` would have nothing to do, nor to wait for; for those who may not wait."""
        return self._witness.is_current()

    def look(self) -> None:
        """See to it that the followers know all that was committed before this call, whoever did; DatabaseUnavailable.

        Reads nothing of the database where nobody but this object has written. Not for followers themselves.
        """
        if self._witness.is_current():
            return
        with self._write_turn(), _faults_named():
            if not self._witness.is_current():
                with self._writer.connect() as connection:
                    self._witness.reload(_raw(connection))
        self._witness.wake()

    @contextmanager
    def _witnessed(self) -> Iterator[None]:
        is_in_doubt = False
        self._witness.enter()
        try:
            yield
        except (SQLAlchemyError, DatabaseUnavailable):
            is_in_doubt = True
            raise
        finally:
            self._witness.end(is_in_doubt)

    @contextmanager
    def _write_turn(self) -> Iterator[None]:
        """Hold the lock of the writers."""
        if not self._write_lock.acquire(timeout=WRITE_WAIT_SECONDS):
            raise DatabaseUnavailable(_LOCKED)
        try:
            yield
        finally:
            self._write_lock.release()

    @contextmanager
    def _turn_to_write(self) -> Iterator[None]:
        """The same; a fault in the meantime is remembered until a transaction gets through."""
        with self._write_turn():
            try:
                with _faults_named():
                    yield
                self._write_problem = None
            except DatabaseUnavailable as fault:
                self._write_problem = fault.detail
                raise

    def _begin_to_write(self, connection: Connection) -> None:
        raw = _raw(connection)
        self._witness.arm(raw)
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        self._witness.begun(raw)

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
            self._forget_writer()
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
        self._forget_writer()

    def _forget_writer(self) -> None:
        self._witness.close()
        self._writer.dispose()

    def _prepare_connection(self, connection: Any, _record: Any) -> None:
        self._check_file()
        connection.isolation_level = None  # sqlite3 must not begin transactions of its own: `_begin` does
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"busy_timeout={BUSY_TIMEOUT_MILLISECONDS}",
            f"journal_size_limit={WAL_BYTES}",
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
    except (DBAPIError, sqlite3.Error) as error:
        if (fault := fault_of(error)) is not None:
            raise DatabaseUnavailable(fault) from error
        raise


def fault_of(error: DBAPIError | sqlite3.Error) -> str | None:
    """What is wrong with the database, as a sentence; None when it is rather the statement."""
    code = getattr(error.orig if isinstance(error, DBAPIError) else error, "sqlite_errorcode", None)  # Python 3.11
    return None if code is None else _FAULTS.get(code & 0xFF)


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('begin', 'DEFERRED')}")


def _keep_few_pages(connection: Any, _record: Any) -> None:
    connection.execute(f"PRAGMA cache_size=-{READER_CACHE_KIB}").close()


def _raw(connection: Connection) -> sqlite3.Connection:
    return cast(sqlite3.Connection, connection.connection.dbapi_connection)
