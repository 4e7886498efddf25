"""The live queue as the last commit left it, in memory, and who waits for a change of it.

The truth is in the database. The board follows it (`Database.follow`): rows are read again inside the transaction that
touched them, and shown when that is on disk, in the order of the commits. A transaction that fails shows nothing; where
somebody else has written, everything is read again. So what it answers is what the database would have answered, for
no query. Nothing is decided here, and nothing is known of labs and of who may ask.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from remote_lab.core.db import Database
from remote_lab.core.models import Session
from remote_lab.core.witness import Written
from remote_lab.states import SessionState

log = logging.getLogger(__name__)

Place = tuple[str, int]
"""What moves while a session waits: its state, and how many are in front of it."""
MOST_READ_AGAIN = 500
"""Rows that are read one by one; where a transaction has touched more, all that are live are read."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A waiting or active session; the fields are those of `models.Session`."""

    ticket: int
    id: str
    token_id: int | None
    state: str
    slot: int | None
    lease_expires_at: datetime | None
    purpose: str | None
    ci_job_url: str | None
    activated_at: datetime | None

    @property
    def is_active(self) -> bool:
        """Whether it has its slot."""
        return self.state == SessionState.ACTIVE


@dataclass(frozen=True)
class Sight:
    """One session and what is around it, at one moment."""

    entry: Entry
    position: int
    """How many are in front of it, active ones included."""
    waiting: int
    """How many sessions wait."""
    active: tuple[Entry, ...]
    """Who is active, in the order of their slots."""
    turn: int
    """Grows with every change of who is active, and of labs."""


_COLUMNS = tuple(field.name for field in fields(Entry))
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM sessions WHERE state != 'ended'"  # noqa: S608 - names of our own
_MOMENTS = tuple(_COLUMNS.index(name) for name in ("lease_expires_at", "activated_at"))


class Watch:
    """Somebody who waits for a session to have another place than the one they have seen."""

    def __init__(self, board: Board, session_id: str, seen: Place | None, wake: Callable[[], None]) -> None:
        self.session_id = session_id
        self.seen = seen
        self.wake = wake
        self.is_over = False
        """Whether `wake` was called, or is about to be."""
        self._board = board

    def cancel(self) -> bool:
        """Wait no more; False when `wake` was called, or is being called now."""
        return self._board.cancel(self)


class Board:
    """The queue of one server; safe to use from many threads."""

    def __init__(self, database: Database) -> None:
        """Follow a database; it is read when somebody asks first, or writes."""
        self._database = database
        self._lock = threading.Lock()
        self._entries: dict[int, Entry] = {}
        self._tickets: list[int] = []
        self._by_id: dict[str, int] = {}
        self._active: dict[int, Entry] = {}
        self._turn = 0
        self._prepared: tuple[frozenset[int] | None, list[Entry], bool] = (frozenset(), [], False)
        """The tickets that a transaction touched, None: all; those of them that are live; whether it touched labs."""
        self._watches: dict[str, list[Watch]] = {}
        self._to_wake: deque[Watch] = deque()
        database.follow(self)
        database.changes.on_close(self._let_go)

    @property
    def closed(self) -> bool:
        """Whether the server lets everybody go."""
        return self._database.changes.closed

    def entry(self, session_id: str) -> Entry | None:
        """A session that waits or is active; None for one that has ended or never was."""
        self._database.look()
        with self._lock:
            return self._find(session_id)

    def sight(self, session_id: str) -> Sight | None:
        """A session that waits or is active, and what is around it."""
        self._database.look()
        with self._lock:
            entry = self._find(session_id)
            return None if entry is None else self._sight(entry)

    def sight_at_once(self, session_id: str) -> Sight | None:
        """The same for who may wait for nothing; None also where everything has to be read again."""
        if not self._database.is_current():
            return None
        with self._lock:
            entry = self._find(session_id)
            return None if entry is None else self._sight(entry)

    def sight_of(self, entry: Entry) -> Sight:
        """The same for one that was live a moment ago, whatever has become of it."""
        self._database.look()
        with self._lock:
            return self._sight(entry)

    def live(self) -> list[Entry]:
        """All waiting and active sessions, in the order of the queue."""
        self._database.look()
        with self._lock:
            return [self._entries[ticket] for ticket in self._tickets]

    def head(self) -> Sight | None:
        """The first of the queue, active or about to be."""
        self._database.look()
        with self._lock:
            return self._sight(self._entries[self._tickets[0]]) if self._tickets else None

    def count(self) -> int:
        """How many sessions wait or are active."""
        self._database.look()
        with self._lock:
            return len(self._tickets)

    def someone_can_go_on(self, slots: int) -> bool:
        """Whether somebody waits though fewer than `slots` sessions are active."""
        self._database.look()
        with self._lock:
            return len(self._active) < min(slots, len(self._tickets))

    def watch(self, session_id: str, seen: Place | None, wake: Callable[[], None]) -> Watch:
        """Call `wake` once, as soon as a session has another place than was seen, or the server lets everybody go.

        That may be before this returns, and is where everything has to be read again: nobody waits for that here. It
        is called on the thread that committed, outside of all locks, in the order of the queue, those that became
        active first; it has to be quick, and what it raises is logged.
        """
        watch = Watch(self, session_id, seen, wake)
        is_known = self._database.is_current()
        with self._lock:
            watch.is_over = self.closed or not is_known or self._place(session_id) != seen
            if not watch.is_over:
                self._watches.setdefault(session_id, []).append(watch)
        if watch.is_over:
            _call(watch)
        return watch

    def cancel(self, watch: Watch) -> bool:
        """See `Watch.cancel`."""
        with self._lock:
            waiting = self._watches.get(watch.session_id, [])
            if watch in waiting:
                waiting.remove(watch)
                if not waiting:
                    del self._watches[watch.session_id]
            return not watch.is_over

    def prepare(self, connection: sqlite3.Connection, written: Written) -> None:
        """See `Follower`."""
        tickets = written.tickets
        if len(tickets) > MOST_READ_AGAIN:
            self._prepared = None, _read(connection, _SELECT), written.has_labs
        elif tickets:
            marks = ", ".join("?" * len(tickets))
            found = _read(connection, f"{_SELECT} AND ticket IN ({marks})", tickets)
            self._prepared = tickets, found, written.has_labs
        else:
            self._prepared = tickets, [], written.has_labs

    def publish(self) -> None:
        """See `Follower`."""
        tickets, found, has_labs = self._prepared
        with self._lock:
            self._show(tickets, found)
            self._turn += has_labs

    def reload(self, connection: sqlite3.Connection) -> None:
        """See `Follower`."""
        found = _read(connection, _SELECT)
        with self._lock:
            self._show(None, found)
            self._turn += 1

    def wake(self) -> None:
        """See `Follower`."""
        while self._to_wake:
            try:
                watch = self._to_wake.popleft()
            except IndexError:
                return  # another thread has called the last of them
            _call(watch)

    def _let_go(self) -> None:
        with self._lock:
            self._move_on(watch for watches in self._watches.values() for watch in watches)
        self.wake()

    def _show(self, tickets: Iterable[int] | None, found: Iterable[Entry]) -> None:
        """Replace the entries with these tickets, None: all, by those that were found."""
        if tickets is None:
            tickets = [entry.ticket for entry in found] + self._tickets
        active_before = self._active.copy()
        now = {entry.ticket: entry for entry in found}
        for ticket in tickets:
            self._replace(ticket, now.get(ticket))
        if self._active.keys() != active_before.keys():
            self._turn += 1
        watches = (watch for watches in self._watches.values() for watch in watches)
        self._move_on(watch for watch in watches if self._place(watch.session_id) != watch.seen)

    def _replace(self, ticket: int, entry: Entry | None) -> None:
        before = self._entries.pop(ticket, None)
        self._active.pop(ticket, None)
        if entry is not None:
            self._entries[ticket] = entry
            self._by_id[entry.id] = ticket
            if entry.is_active:
                self._active[ticket] = entry
            if before is None:
                insort(self._tickets, ticket)
        elif before is not None:
            del self._by_id[before.id]
            del self._tickets[bisect_left(self._tickets, ticket)]

    def _move_on(self, watches: Iterable[Watch]) -> None:
        """Let those watches be called: of the promoted first, of those that wait in their order, then of the ended."""
        over = sorted(watches, key=self._order)
        for watch in over:
            watch.is_over = True
            self._watches.pop(watch.session_id, None)
        self._to_wake.extend(over)

    def _order(self, watch: Watch) -> tuple[int, int]:
        entry = self._find(watch.session_id)
        return (2, 0) if entry is None else (0 if entry.is_active else 1, entry.ticket)

    def _find(self, session_id: str) -> Entry | None:
        ticket = self._by_id.get(session_id)
        return None if ticket is None else self._entries[ticket]

    def _place(self, session_id: str) -> Place | None:
        entry = self._find(session_id)
        return None if entry is None else (entry.state, bisect_left(self._tickets, entry.ticket))

    def _sight(self, entry: Entry) -> Sight:
        return Sight(
            entry=entry,
            position=bisect_left(self._tickets, entry.ticket),
            waiting=len(self._tickets) - len(self._active),
            active=tuple(sorted(self._active.values(), key=_slot)),
            turn=self._turn,
        )


def entry_of(session: Session) -> Entry:
    """A session as the transaction at hand leaves it."""
    return Entry(*(getattr(session, name) for name in _COLUMNS))


def _slot(entry: Entry) -> int:
    return entry.slot or 0


def _call(watch: Watch) -> None:
    try:
        watch.wake()
    except Exception:
        log.exception("Somebody who waits for session %s could not be woken", watch.session_id)


def _read(connection: sqlite3.Connection, query: str, values: Iterable[int] = ()) -> list[Entry]:
    return [_entry(row) for row in connection.execute(query, tuple(values)).fetchall()]


def _entry(row: Iterable[Any]) -> Entry:
    values = list(row)
    for column in _MOMENTS:
        if values[column] is not None:
            values[column] = datetime.fromisoformat(values[column]).replace(tzinfo=UTC)
    return Entry(*values)
