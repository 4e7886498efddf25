"""What each use case costs, in statements and in writes that wait for the disk; seconds would say more of the machine.

The bounds on statements are what is needed today and a little room. Those on writes are exact.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from fakes import FakeRunner, wait_until, yaml_file
from sqlalchemy import Connection, Engine, event, text

from remote_lab.core.db import READER_CACHE_KIB
from remote_lab.core.manager import OWNER_REASON, LabManager
from remote_lab.core.reaper import Reaper


@dataclass
class Meter:
    """Counts what happens on every connection of the process, whoever uses it, from transaction to transaction."""

    statements: list[str] = field(default_factory=list)
    writes: int = 0
    """Commits that changed something: each waits until it is on disk."""
    _changes: dict[int, int] = field(default_factory=dict)

    def of(self, act: Callable[[], object]) -> tuple[int, int]:
        """Writes and statements of something that is done now."""
        self.statements.clear()
        self.writes = 0
        act()
        return self.writes, len(self.statements)

    def begin(self, connection: Connection) -> None:
        raw = _raw(connection)
        raw.set_trace_callback(self._note)
        self._changes[id(raw)] = raw.total_changes

    def commit(self, connection: Connection) -> None:
        raw = _raw(connection)
        self.writes += raw.total_changes != self._changes[id(raw)]

    def _note(self, statement: str) -> None:
        # A statement is traced again for each of its triggers.
        is_work = not statement.startswith(("--", "BEGIN", "COMMIT", "ROLLBACK", "PRAGMA", "CREATE TEMP TRIGGER"))
        if is_work and statement not in self.statements[-1:]:
            self.statements.append(statement)


def _raw(connection: Connection) -> sqlite3.Connection:
    return cast(sqlite3.Connection, connection.connection.dbapi_connection)


@pytest.fixture
def meter() -> Iterator[Meter]:
    meter = Meter()
    hooks: dict[str, Callable[..., Any]] = {"begin": meter.begin, "commit": meter.commit}
    for name, hook in hooks.items():
        event.listen(Engine, name, hook)
    yield meter
    for name, hook in hooks.items():
        event.remove(Engine, name, hook)


@pytest.fixture
def active(manager: LabManager) -> str:
    """A session with a lab."""
    session_id = manager.open_session().session_id
    manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    return session_id


def test_readers_keep_few_pages(manager: LabManager) -> None:
    """With SQLite's own 2 MiB for each of the pool, a busy day would take 16 MiB for what every write makes useless."""
    database = manager.database
    with database.read() as first, database.read() as second, database.read() as third:
        pages = [opened.scalar(text("PRAGMA cache_size")) for opened in (first, second, third)]
    assert pages == 3 * [-READER_CACHE_KIB]
    with database.write() as writing:
        assert writing.scalar(text("PRAGMA cache_size")) == -2000


def test_one_reader_after_the_other_needs_one_connection(manager: LabManager) -> None:
    """The one with prepared statements, although others lie in the pool."""
    used = []
    with manager.database.read() as first, manager.database.read() as second:
        first.execute(text("SELECT 1"))
        second.execute(text("SELECT 1"))
    for _ in range(10):
        with manager.database.read() as reading:
            used.append(id(_raw(reading.connection())))
    assert len(set(used)) == 1


def test_a_write_waits_for_the_disk_once(manager: LabManager) -> None:
    """SQLite flushes its log once for each commit, and the database itself only when it empties the log."""
    for transaction in (manager.database.read, manager.database.write):
        with transaction() as opened:
            assert opened.scalar(text("PRAGMA journal_mode")) == "wal"
            assert opened.scalar(text("PRAGMA synchronous")) == 2  # FULL


def test_the_way_of_a_session(manager: LabManager, meter: Meter) -> None:
    """One write to enter the queue, active at once or not, and one to leave it, the next one's turn included."""
    first = ""

    def enter() -> None:
        nonlocal first
        first = manager.open_session().session_id

    writes, statements = meter.of(enter)
    assert (writes, statements <= 9) == (1, True), meter.statements
    second = manager.open_session().session_id
    writes, statements = meter.of(manager.open_session)
    assert (writes, statements <= 9) == (1, True), meter.statements
    writes, statements = meter.of(lambda: manager.end_session(first, OWNER_REASON))
    assert (writes, statements <= 12) == (1, True), meter.statements
    assert manager.session(second).status == "active"


def test_who_asks_writes_nothing(manager: LabManager, meter: Meter, active: str) -> None:
    """Polls, heartbeats and looks at the lab, of whoever waits and of whoever is active."""
    waiting = manager.open_session().session_id
    for ask in (
        lambda: manager.session(waiting),
        lambda: manager.session(active),
        lambda: manager.wait_for_session(waiting, 0.001),
        lambda: manager.heartbeat(waiting),
        lambda: manager.touch(active),
        lambda: manager.require_active(active),
        manager.active_session,
        manager.health,
        lambda: manager.inspection.lab(active),
        lambda: manager.inspection.devices(active),
    ):
        ask()
        writes, statements = meter.of(ask)
        assert (writes, statements <= 6) == (0, True), meter.statements


def test_the_use_of_a_running_lab(manager: LabManager, meter: Meter, runner: FakeRunner, active: str) -> None:
    """One write for each reference that is taken or given back, and nothing of netlab."""
    calls = list(runner.calls)
    writes, statements = meter.of(lambda: manager.desk.acquire(active, yaml_file(), [], reuse=True))
    assert (writes, statements <= 7) == (1, True), meter.statements
    writes, statements = meter.of(lambda: manager.desk.release(active))
    assert (writes, statements <= 5) == (1, True), meter.statements
    assert runner.calls == calls


def test_the_life_of_a_lab(manager: LabManager, meter: Meter) -> None:
    """Four writes: claimed, up, on its way down with the session that ends, down. Nobody is looked for to admit."""
    session_id = manager.open_session().session_id

    def live() -> None:
        manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
        manager.end_session(session_id, OWNER_REASON)
        wait_until(lambda: not manager.workspaces.present(), "the folder of the lab is gone")
        manager.boots.end_all("the test is over", 10)

    writes, statements = meter.of(live)
    assert (writes, statements <= 30) == (4, True), meter.statements


def test_a_round_of_the_reaper_with_nothing_to_do(manager: LabManager, reaper: Reaper, meter: Meter) -> None:
    """Nothing is written, and nobody who waits is woken."""
    reaper.recover()
    for prepare in (lambda: None, manager.open_session, manager.open_session):
        prepare()
        reaper.tick()
        changes = manager.database.changes.count()
        writes, statements = meter.of(reaper.tick)
        assert (writes, statements <= 30) == (0, True), meter.statements
        assert manager.database.changes.count() == changes


def test_no_call_costs_more_when_many_wait(manager: LabManager, meter: Meter) -> None:
    """The queue is read as a whole by nobody but the reaper."""
    active = manager.open_session().session_id
    manager.open_session()
    calls = (
        manager.open_session,
        lambda: manager.session(active),
        lambda: manager.heartbeat(active),
        lambda: manager.desk.acquire(active, yaml_file(), [], reuse=True),
        lambda: manager.desk.release(active),
    )
    for call in (*calls, *calls):
        call()
    before = [meter.of(call) for call in calls]
    for _ in range(30):
        manager.open_session()
    assert [meter.of(call) for call in calls] == before
