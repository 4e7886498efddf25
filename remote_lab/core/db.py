"""The database: engine, SQLite's settings, read and write transactions. Only edges of the core open them.

SQLite in WAL mode lets readers go on beside one writer. Write transactions begin IMMEDIATE, so that a conflict shows at
their start and not in their middle (a deferred one that read first fails with SQLITE_BUSY_SNAPSHOT at its first
write, whatever the busy timeout), and queue on one lock in the process, because waiting in SQLite's busy handler is
unfair and slow. What they change is durable when they return (synchronous=FULL).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session as Transaction

from remote_lab.core.waiting import Changes
from remote_lab.errors import DatabaseUnusable

BUSY_TIMEOUT_MILLISECONDS = 30_000
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

    `changes` counts the write transactions, for those who wait for one.
    """

    def __init__(self, url: str) -> None:
        """Take an SQLAlchemy URL; nothing is opened before the first transaction."""
        try:
            self.url = make_url(url)
        except ArgumentError:
            raise DatabaseUnusable(_URL_EXPECTED.format(url)) from None
        if self.url.get_backend_name() != "sqlite" or self.url.database in (None, "", ":memory:"):
            raise DatabaseUnusable(_URL_EXPECTED.format(url))
        self._write_lock = threading.Lock()
        self.changes = Changes()
        self._engine = create_engine(self.url, pool_size=8, max_overflow=-1)
        event.listen(self._engine, "connect", _prepare_connection)
        event.listen(self._engine, "begin", _begin)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A transaction that sees one state of the database and changes nothing."""
        with Transaction(self._engine) as transaction:
            yield transaction

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """The only transaction that may change the database at this time; committed when the block ends well.

        What `after_commit` registered runs when it is on disk and the next writer may begin, what `on_failure`
        registered when it is not.
        """
        engine = self._engine.execution_options(begin="IMMEDIATE")
        with self._write_lock, Transaction(engine, expire_on_commit=False) as transaction:
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

    def upgrade(self) -> None:
        """Bring the schema to this version's with the shipped migrations; DatabaseUnusable when that cannot be done."""
        # Commands that only read are quicker without alembic.
        from alembic import command
        from alembic.config import Config as AlembicConfig
        from alembic.util import CommandError

        path = Path(str(self.url.database))
        settings = AlembicConfig()
        settings.set_main_option("script_location", import_module("remote_lab.migrations").__path__[0])
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._engine.execution_options(begin="IMMEDIATE").begin() as connection:
                settings.attributes["connection"] = connection
                command.upgrade(settings, "head")
        except (SQLAlchemyError, CommandError, OSError) as error:
            reason = error.orig if isinstance(error, DBAPIError) else error
            raise DatabaseUnusable(
                f"The database {path} cannot be used: {reason}. Move it away to start empty, or restore a backup."
            ) from error

    def check(self) -> None:
        """Raise SQLAlchemyError when the database does not answer."""
        with self.read() as transaction:
            transaction.execute(text("SELECT 1 FROM alembic_version"))

    def dispose(self) -> None:
        """Close the connections that lie idle in the pool."""
        self._engine.dispose()


def _prepare_connection(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # sqlite3 must not begin transactions of its own: `_begin` does
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={BUSY_TIMEOUT_MILLISECONDS}",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Any) -> None:
    connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('begin', 'DEFERRED')}")
