"""What is committed, by whomever: noticed by SQLite itself, for those who keep some of it in memory.

Temporary triggers on the one connection that writes note which rows a transaction touched, whatever statement did it,
so no rule has to say what it changed and none can forget to. Commits of anybody else, another process or another
connection of this one, are noticed by `PRAGMA data_version` (sqlite.org/pragma.html#pragma_data_version), which differs
on a connection when somebody else has committed: on the writer's own one between two of its transactions, and on a
connection of its own before each answer from memory. What is kept, and for whom, is not known here.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

log = logging.getLogger(__name__)

_TOUCHED = "remote_lab_touched"
_TRIGGERS = (
    ("sessions", "INSERT", "", "NEW.ticket"),
    ("sessions", "UPDATE", "WHEN OLD.state != 'ended' OR NEW.state != 'ended'", "NEW.ticket"),
    ("sessions", "DELETE", "WHEN OLD.state != 'ended'", "OLD.ticket"),
    ("labs", "INSERT", "", "0"),
    ("labs", "UPDATE", "", "0"),
    ("labs", "DELETE", "", "0"),
    ("tokens", "UPDATE OF name, sha256, rights, expires_at, revoked_at", "", "NEW.id"),
    ("tokens", "DELETE", "", "OLD.id"),
)
"""What is noticed: the table, what happens to its row, when that counts, and by which number the row is known.

When a token was used last concerns nobody, nor does what becomes of sessions that have ended.
"""


@dataclass(frozen=True)
class Written:
    """What one transaction has touched."""

    tickets: frozenset[int]
    """Of the sessions."""
    has_labs: bool
    has_tokens: bool


class Follower(Protocol):
    """Keeps in memory something of what is in the database. All but `wake` is called within the lock of the writers."""

    def prepare(self, connection: sqlite3.Connection, written: Written) -> None:
        """Read what a transaction wrote that is about to be committed, inside it; it may still fail."""

    def publish(self) -> None:
        """What was prepared last is on disk."""

    def reload(self, connection: sqlite3.Connection) -> None:
        """Read everything: somebody else has committed, or nothing was read so far."""

    def wake(self) -> None:
        """Tell those who wait for what was published, outside the lock of the writers."""


class Witness:
    """Notices commits for its followers; the lock of the writers is its caller's business."""

    def __init__(self, path: Path) -> None:
        """`path` of the database; nothing is opened before it is looked at."""
        self.followers: list[Follower] = []
        self._path = path
        self._lock = threading.Lock()
        self._looking: sqlite3.Connection | None = None
        self._settled: int | None = None
        """What `_looking` says while everything is known that is committed; None: it is not."""
        self._is_writing = False
        self._writer: sqlite3.Connection | None = None
        self._has_triggers = False
        """On `_writer`; a schema that somebody else has changed may have taken them along."""
        self._own: int | None = None
        """What `_writer` says while nobody else has committed; None: that is not known."""
        self._thread: int | None = None
        self._touched: dict[str, set[int]] = {}
        self._is_prepared = False
        self._changes_before = 0

    def enter(self) -> None:
        """This thread has the lock of the writers, and must not wait for it."""
        with self._lock:
            self._thread = threading.get_ident()

    def arm(self, connection: sqlite3.Connection) -> None:
        """Before a write transaction begins on a connection: see to it that what it does will be noticed."""
        if connection is not self._writer:
            self._writer, self._own, self._has_triggers = connection, None, False
        if self.followers and not self._has_triggers:
            connection.create_function(_TOUCHED, 2, self._touch)
            for number, (table, event, condition, key) in enumerate(_TRIGGERS):
                connection.execute(
                    f"CREATE TEMP TRIGGER IF NOT EXISTS {_TOUCHED}_{number} AFTER {event} ON main.{table} {condition} "
                    f"BEGIN SELECT {_TOUCHED}('{table}', {key}); END"
                ).close()
            self._has_triggers = True

    def begun(self, connection: sqlite3.Connection) -> None:
        """A write transaction has begun: nobody else commits from here on, so nobody has to look."""
        self._touched, self._is_prepared = {}, False
        self._changes_before = connection.total_changes
        with self._lock:
            if _version(connection) != self._own:
                self._settled = self._own = None
            self._is_writing = True

    def prepare(self) -> bool:
        """Before the commit: let the followers read what was written; returns whether anything was."""
        connection = self._writer
        if not self._is_writing or connection is None or connection.total_changes == self._changes_before:
            return False
        if self._touched and self._own is not None:
            touched = self._touched
            tickets = frozenset(touched.get("sessions", ()))
            written = Written(tickets, "labs" in touched, "tokens" in touched)
            try:
                for follower in self.followers:
                    follower.prepare(connection, written)
                self._is_prepared = True
            except sqlite3.Error:
                self._own = None
        return True

    def publish(self) -> None:
        """After the commit: let the followers know. Raises nothing, what is on disk has happened."""
        connection = self._writer
        if connection is None or not self._is_writing or not self.followers:
            return
        try:
            # In this order: what others commit after the first look shows at the next look, or at the second.
            with self._lock:
                settled = self._look()
            own = _version(connection)
            if own != self._own:
                self._reload(connection)
            elif self._is_prepared:
                for follower in self.followers:
                    follower.publish()
            with self._lock:
                self._settled, self._own = settled, own
        except Exception:
            log.exception("What was committed cannot be read now; whoever looks next tries again")
            self.doubt()

    def end(self, is_in_doubt: bool) -> None:
        """The transaction is over; `is_in_doubt`: something failed, so what is known has to be read again.

        One that did not even begin has written nothing: whoever reads goes on while somebody else has the lock.
        """
        if is_in_doubt and self._is_writing:
            self.doubt()
        with self._lock:
            self._is_writing, self._thread = False, None

    def doubt(self) -> None:
        """Whoever looks next finds that everything has to be read again."""
        with self._lock:
            self._settled = self._own = None

    def is_current(self) -> bool:
        """Whether the followers know all that was committed before this call, or cannot be told more now.

        Inside a write transaction they cannot, and its thread sees what was there before it.
        """
        with self._lock:
            if self._thread == threading.get_ident():
                return True
            if self._settled is None:
                return False
            return self._is_writing or self._look() in (None, self._settled)

    def reload(self, connection: sqlite3.Connection) -> None:
        """Let the followers read everything; with the lock of the writers, outside a transaction. sqlite3.Error."""
        with self._lock:
            settled = self._look()
        own = _version(connection)
        self._reload(connection)
        with self._lock:
            self._writer, self._settled, self._own = connection, settled, own

    def wake(self) -> None:
        """Let the followers tell those who wait."""
        for follower in self.followers:
            follower.wake()

    def close(self) -> None:
        """Close what was opened; everything is read again by whoever looks next."""
        self.doubt()
        with self._lock:
            self._writer, self._has_triggers = None, False
            if self._looking is not None:
                self._looking.close()
                self._looking = None

    def _touch(self, table: str, number: int) -> None:
        self._touched.setdefault(table, set()).add(number)

    def _reload(self, connection: sqlite3.Connection) -> None:
        self._has_triggers = False
        for follower in self.followers:
            follower.reload(connection)

    def _look(self) -> int | None:
        """The version of what is committed; None where that cannot be told: the database is locked, or has gone."""
        with suppress(sqlite3.Error):
            if self._looking is None:
                self._looking = sqlite3.connect(
                    f"file:{quote(str(self._path))}?mode=rw",
                    uri=True,
                    timeout=0,
                    isolation_level=None,
                    check_same_thread=False,
                )
            return _version(self._looking)
        return None


def _version(connection: sqlite3.Connection) -> int:
    # All rows: a statement that is not at its end would keep its transaction open.
    ((version,),) = connection.execute("PRAGMA data_version").fetchall()
    return int(version)
