"""The board: at every moment what the database says, whoever wrote it, and whoever waits for a change is told once."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pytest
from fakes import WAIT_SECONDS, FakeRunner, wait_until, yaml_file
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session as Transaction

from remote_lab.callers import ADMIN, USE, Caller
from remote_lab.config import Config
from remote_lab.core import db, sessions, tokens
from remote_lab.core.board import Entry, Place, entry_of
from remote_lab.core.db import Database
from remote_lab.core.manager import HELD_IN_FRONT, LabManager
from remote_lab.errors import DatabaseUnavailable, SessionNotFound

TESTER = Caller("tester", 1, frozenset({USE, ADMIN}))


def on_record(manager: LabManager) -> list[Entry]:
    """The live queue as the database has it."""
    with manager.database.read() as transaction:
        return [entry_of(one) for one in sessions.live(transaction)]


@contextmanager
def statements() -> Iterator[list[str]]:
    """What is asked of databases within the block."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


class Failure(Exception):
    """What a rule in the middle of a transaction may raise."""


class Queue(RuleBasedStateMachine):
    """Writes of all kinds, each followed by a comparison."""

    migrated: Path
    scratch: Path

    def __init__(self) -> None:
        super().__init__()
        folder = self.scratch / uuid4().hex
        folder.mkdir()
        self.config = Config(state_dir=folder, slots=2)
        shutil.copy(self.migrated, folder / "remote-lab.sqlite3")
        self.manager = self.start()

    def start(self) -> LabManager:
        return LabManager(self.config, Database(self.config.database), FakeRunner())

    def teardown(self) -> None:
        self.manager.database.dispose()

    def some(self, number: int) -> str:
        queue = on_record(self.manager)
        return queue[number % len(queue)].id if queue else "nobody"

    @rule()
    def open(self) -> None:
        self.manager.open_session()

    @rule(number=st.integers(0, 20))
    def end(self, number: int) -> None:
        with suppress(SessionNotFound):
            self.manager.end_session(self.some(number), "test")

    @rule(number=st.integers(0, 20), seconds=st.integers(1, 999))
    def extend(self, number: int, seconds: int) -> None:
        with self.manager.database.write() as transaction:
            change = text("UPDATE sessions SET lease_seconds = :seconds, purpose = :seconds WHERE id = :id")
            transaction.execute(change, {"seconds": seconds, "id": self.some(number)})

    @rule(number=st.integers(0, 20))
    def fail(self, number: int) -> None:
        with suppress(Failure), self.manager.database.write() as transaction:
            transaction.execute(text("UPDATE sessions SET state = 'ended'"))
            raise Failure

    @rule(number=st.integers(0, 20))
    def go_on_after_a_statement_that_failed(self, number: int) -> None:
        """SQLite takes back what the statement did before it failed."""
        with self.manager.database.write() as transaction:
            with suppress(IntegrityError):
                transaction.execute(text("UPDATE sessions SET state = 'active', slot = 1 WHERE state != 'ended'"))
            transaction.execute(text("UPDATE sessions SET purpose = 'x' WHERE id = :id"), {"id": self.some(number)})

    @rule(number=st.integers(0, 20))
    def somebody_else_ends_one(self, number: int) -> None:
        with closing(sqlite3.connect(self.config.state_dir / "remote-lab.sqlite3")) as other, other:
            other.execute("UPDATE sessions SET state = 'ended' WHERE id = ?", (self.some(number),))

    @rule(number=st.integers(0, 20))
    def somebody_else_writes_and_so_do_we(self, number: int) -> None:
        """With nobody looking in between."""
        self.somebody_else_ends_one(number)
        with self.manager.database.write() as transaction:
            transaction.execute(text("UPDATE sessions SET purpose = 'y' WHERE id = :id"), {"id": self.some(number)})

    @rule(number=st.integers(0, 20))
    def delete(self, number: int) -> None:
        with self.manager.database.write() as transaction:
            transaction.execute(text("DELETE FROM sessions WHERE id = :id"), {"id": self.some(number)})

    @rule()
    def somebody_else_wipes(self) -> None:
        with closing(sqlite3.connect(self.config.state_dir / "remote-lab.sqlite3")) as other, other:
            other.execute("DELETE FROM sessions WHERE state = 'waiting'")

    @rule()
    def jump(self) -> None:
        with self.manager.database.write() as transaction:
            for name in ("activated_at", "lease_expires_at"):
                moved = f"strftime('%Y-%m-%d %H:%M:%f', {name}, '+3600 seconds') || '000'"
                transaction.execute(text(f"UPDATE sessions SET {name} = {moved}"))

    @rule()
    def restart(self) -> None:
        self.manager.database.dispose()
        self.manager = self.start()

    @invariant()
    def the_board_is_what_is_on_record(self) -> None:
        expected, board = on_record(self.manager), self.manager.board
        assert board.live() == expected
        assert board.count() == len(expected)
        for position, entry in enumerate(expected):
            sight = board.sight(entry.id)
            assert sight is not None
            assert (sight.entry, sight.position) == (entry, position)
            assert [one.slot for one in sight.active] == sorted(one.slot for one in expected if one.is_active)  # type: ignore[type-var]
            assert sight.waiting == sum(not one.is_active for one in expected)
        assert board.entry("nobody") is None


def test_the_board_is_what_the_database_says(tmp_path: Path) -> None:
    """After any write of anybody, one that failed and one of another process included, and after a restart."""
    database = Database(f"sqlite:///{tmp_path / 'migrated.sqlite3'}")
    database.upgrade()
    database.dispose()
    with closing(sqlite3.connect(tmp_path / "migrated.sqlite3")) as migrated:
        migrated.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    Queue.migrated, Queue.scratch = tmp_path / "migrated.sqlite3", tmp_path
    run_state_machine_as_test(
        Queue,
        settings=settings(
            max_examples=5,
            stateful_step_count=25,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_more_rows_than_are_read_one_by_one(manager: LabManager) -> None:
    """A transaction that touches thousands is one reading of the queue."""
    manager.open_session()
    with manager.database.write() as transaction:
        insert = text(
            "INSERT INTO sessions (id, state, created_at) VALUES (:id, 'waiting', '2026-01-01 00:00:00.000000')"
        )
        transaction.execute(insert, [{"id": str(uuid4())} for _ in range(1200)])
    assert manager.board.count() == 1201
    assert manager.board.live() == on_record(manager)


def test_a_commit_of_another_process_right_behind_ours_is_not_missed(manager: LabManager, config: Config) -> None:
    """The other party comes in between our commit and its publication."""
    first, second = (manager.open_session().session_id for _ in range(2))

    def too_early(_transaction: Transaction) -> None:
        with closing(sqlite3.connect(config.state_dir / "remote-lab.sqlite3")) as other, other:
            other.execute("UPDATE sessions SET state = 'ended' WHERE id = ?", (first,))

    with manager.database.write() as transaction:
        transaction.execute(text("UPDATE sessions SET purpose = 'ours' WHERE id = :id"), {"id": second})
        event.listen(transaction, "after_commit", too_early, once=True)
    assert [(entry.id, entry.purpose) for entry in manager.board.live()] == [(second, "ours")]


def test_who_writes_sees_what_was_before(make_manager: Callable[[], LabManager]) -> None:
    """Instead of waiting for themselves."""
    session_id = make_manager().open_session().session_id
    manager = make_manager()
    with manager.database.write():
        assert manager.board.entry(session_id) is None, "nothing was read so far"
    assert manager.board.entry(session_id) is not None
    with manager.database.write() as transaction:
        sessions.end(transaction, sessions.get(transaction, session_id), "test", manager.database.clock.now())
        assert manager.board.entry(session_id) is not None
    assert manager.board.entry(session_id) is None


def test_a_transaction_that_changes_nothing_wakes_nobody(manager: LabManager) -> None:
    """The reaper makes some in each round."""
    changes = manager.database.changes
    count = changes.count()
    manager.admit()
    assert changes.count() == count
    manager.open_session()
    assert changes.count() > count


def test_someone_can_go_on(manager: LabManager) -> None:
    """While fewer are active than might be, and somebody waits."""
    assert not manager.board.someone_can_go_on(1)
    manager.open_session()
    assert not manager.board.someone_can_go_on(2), "nobody waits"
    manager.open_session()
    assert [manager.board.someone_can_go_on(slots) for slots in (1, 2)] == [False, True]


def test_polls_and_heartbeats_ask_no_database(manager: LabManager) -> None:
    """Nor do they find out whose session it is there, however many wait."""
    first, second = (manager.open_session().session_id for _ in range(2))
    manager.session(second)
    with statements() as seen:
        for session_id, status in ((first, "active"), (second, "waiting")):
            assert manager.session(session_id).status == status
            assert manager.wait_for_session(session_id, 0).status == status
            manager.require_access(session_id, TESTER)
            manager.heartbeat(session_id)
        assert [place.position for place in manager.queue()] == [0, 1]
        assert manager.active_session().session_id == first
    assert seen == []


def test_estimates_are_measured_once_for_each_turn(manager: LabManager) -> None:
    """Not for each of those that ask, and again when somebody has become active."""
    first, *others = (manager.open_session().session_id for _ in range(6))
    manager.end_session(first, "test")
    with statements() as seen:
        for session_id in others:
            assert manager.session(session_id).eta_seconds is not None or session_id == others[0]
    assert 0 < len(seen) <= 4


def test_a_write_is_seen_by_whoever_asks_next(manager: LabManager) -> None:
    """Its own answer included."""
    first = manager.open_session()
    second = manager.open_session()
    assert (first.status, second.status, second.position) == ("active", "waiting", 1)
    manager.end_session(first.session_id, "test")
    assert (manager.session(second.session_id).status, manager.session(second.session_id).position) == ("active", 0)
    with pytest.raises(SessionNotFound, match="test"):
        manager.session(first.session_id)


def place_of(manager: LabManager, session_id: str) -> Place | None:
    """Where a session is now."""
    sight = manager.board.sight(session_id)
    return None if sight is None else (sight.entry.state, sight.position)


def watched(manager: LabManager, session_id: str, told: list[str]) -> Callable[[], bool]:
    """Watch a session as it is now; what it is called goes to `told`. Returns how to cancel."""
    return manager.board.watch(session_id, place_of(manager, session_id), lambda: told.append(session_id)).cancel


def test_who_waits_is_told_in_the_order_of_the_queue(manager: LabManager) -> None:
    """Whoever has become active at the very first, and each once."""
    ids = [manager.open_session().session_id for _ in range(4)]
    told: list[str] = []
    for session_id in reversed(ids):
        watched(manager, session_id, told)
    manager.end_session(ids[0], "test")
    assert told == [ids[1], ids[2], ids[3], ids[0]]
    manager.end_session(ids[1], "test")
    assert len(told) == 4


def test_what_concerns_no_place_wakes_nobody(manager: LabManager, runner: FakeRunner) -> None:
    """Not a longer lease, a token, a lab, a session that comes behind, nor a transaction that fails."""
    first, second = (manager.open_session().session_id for _ in range(2))
    told: list[str] = []
    cancels = [watched(manager, session_id, told) for session_id in (first, second)]
    manager.extend_session(first, 60)
    manager.desk.acquire(first, yaml_file(), [], reuse=True)
    behind = manager.open_session().session_id
    manager.end_session(behind, "test")
    with manager.database.write() as transaction:
        tokens.create(transaction, "somebody", ["use"], None, manager.database.clock.now())
    with suppress(Failure), manager.database.write() as transaction:
        sessions.end(transaction, sessions.get(transaction, first), "test", manager.database.clock.now())
        raise Failure
    assert told == []
    assert [cancel() for cancel in cancels] == [True, True]


def test_a_change_between_looking_and_watching_is_told_at_once(manager: LabManager) -> None:
    """The other party comes in exactly there."""
    first, second = (manager.open_session().session_id for _ in range(2))
    seen = place_of(manager, second)
    manager.end_session(first, "test")
    told: list[str] = []
    watch = manager.board.watch(second, seen, lambda: told.append("now"))
    assert (told, watch.cancel()) == (["now"], False)


def test_a_watch_that_was_cancelled_is_never_told(manager: LabManager) -> None:
    """And cancelling twice is as good as once."""
    first, second = (manager.open_session().session_id for _ in range(2))
    told: list[str] = []
    cancel, other = watched(manager, second, told), watched(manager, second, told)
    assert (cancel(), cancel()) == (True, True)
    manager.end_session(first, "test")
    assert told == [second]
    assert other() is False


def test_one_that_cannot_be_told_keeps_nobody_else_from_it(
    manager: LabManager, caplog: pytest.LogCaptureFixture
) -> None:
    """What it raises is in the log."""
    first, second, third = (manager.open_session().session_id for _ in range(3))
    manager.board.watch(second, place_of(manager, second), lambda: {}["nobody"])
    told: list[str] = []
    watched(manager, third, told)
    manager.end_session(first, "test")
    assert told == [third]
    assert "could not be woken" in caplog.text


def test_a_server_that_stops_lets_everybody_go(manager: LabManager) -> None:
    """Now and from now on."""
    session_id = manager.open_session().session_id
    told: list[str] = []
    watched(manager, session_id, told)
    manager.database.changes.close()
    assert (told, manager.board.closed) == ([session_id], True)
    watched(manager, session_id, told)
    assert told == [session_id] * 2


def test_a_commit_of_another_process_wakes_who_waits(manager: LabManager, config: Config) -> None:
    """As soon as anybody asks anything."""
    first, second = (manager.open_session().session_id for _ in range(2))
    told: list[str] = []
    watched(manager, second, told)
    with closing(sqlite3.connect(config.state_dir / "remote-lab.sqlite3")) as other, other:
        other.execute("UPDATE sessions SET state = 'ended' WHERE id = ?", (first,))
    assert manager.session(second).position == 0
    assert told == [second]


def test_a_lock_of_another_process_keeps_nobody_from_a_poll(
    make_manager: Callable[[], LabManager], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that could not even begin has changed nothing: what is known stays known."""
    monkeypatch.setattr(db, "BUSY_TIMEOUT_MILLISECONDS", 50)
    manager = make_manager()
    session_id = manager.open_session().session_id
    with closing(sqlite3.connect(manager.database.path, isolation_level=None)) as elsewhere:
        elsewhere.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnavailable):
            manager.open_session()
        assert manager.database.is_current()
        with statements() as seen:
            assert manager.session(session_id).status == "active"
        assert seen == []


def test_a_held_poll_answers_with_the_promotion(manager: LabManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it comes between its first look and its watch."""
    first, second, third = (manager.open_session().session_id for _ in range(3))
    watch = manager.board.watch

    def too_late(session_id: str, seen: Place | None, wake: Callable[[], None]) -> object:
        manager.end_session(first, "test")
        return watch(session_id, seen, wake)

    with monkeypatch.context() as patched:
        patched.setattr(manager.board, "watch", too_late)
        assert manager.wait_for_session(second, WAIT_SECONDS).status == "active"
    answers: list[str] = []
    poll = threading.Thread(target=lambda: answers.append(manager.wait_for_session(third, WAIT_SECONDS).status))
    poll.start()
    wait_until(lambda: manager.sessions_seen.silence_seconds(third) == 0.0, "it is held")
    manager.end_session(second, "test")
    poll.join(WAIT_SECONDS)
    assert answers == ["active"]


@pytest.mark.parametrize(("shortest", "usual"), [(0.02, 60.0), (0.5, 60.0), (30.0, 60.0), (None, None)])
def test_who_is_too_far_behind_is_never_told_to_come_too_late(
    manager: LabManager, shortest: float | None, usual: float | None
) -> None:
    """If all in front are as quick as the quickest was, whoever comes back as told is held before their own turn."""
    rows = [{"id": str(uuid4()), "state": "waiting", "seconds": None} for _ in range(1000)]
    rows[:0] = [{"id": str(uuid4()), "state": "ended", "seconds": one} for one in (shortest, usual, usual) if one]
    with manager.database.write() as transaction:
        insert = (
            "INSERT INTO sessions (id, state, created_at, activated_at, ended_at) VALUES (:id, :state, "
            "'2026-01-01 00:00:00.000000', IIF(:seconds IS NULL, NULL, '2026-01-01 00:00:00.000000'), "
            "strftime('%Y-%m-%d %H:%M:%f', '2026-01-01', '+' || :seconds || ' seconds') || '000')"
        )
        transaction.execute(text(insert), rows)
    manager.admit()
    live = manager.board.live()
    told = []
    for position in (HELD_IN_FRONT + 1, 100, 300, 999):
        view = manager.wait_for_session(live[position].id, WAIT_SECONDS)
        assert view.position == position
        assert view.retry_after_seconds is not None
        assert view.retry_after_seconds == 1 or view.retry_after_seconds < (position - 1) * (shortest or 0.01)
        told.append(view.retry_after_seconds)
    assert told == sorted(told)
    assert 1 <= told[0] <= told[-1] <= 30
    assert manager.may_be_held("waiting", HELD_IN_FRONT)
    assert not manager.may_be_held("waiting", HELD_IN_FRONT + 1)
