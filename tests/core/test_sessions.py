"""The queue: strict FIFO, slots, and who is told what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from fakes import FakeRunner, wait_until, yaml_file
from sqlalchemy import delete, select

from remote_lab.core.manager import LabManager
from remote_lab.core.models import Session
from remote_lab.core.sessions import free_slots, promotions
from remote_lab.errors import NoActiveSession, QueueFull, SessionNotFound, SessionWaiting


def positions(manager: LabManager, ids: list[str]) -> list[tuple[str, int]]:
    views = [manager.session(session_id) for session_id in ids]
    return [(view.status, view.position) for view in views]


def test_the_lowest_tickets_get_the_free_slots() -> None:
    """Whatever order they are listed in."""
    assert promotions([9, 5, 3], free_slots(4, {1, 3})) == [(3, 2), (5, 4)]
    assert promotions([1, 2], []) == []
    assert promotions([], [1]) == []


def test_the_first_is_active_at_once_and_the_others_wait_in_order(manager: LabManager) -> None:
    """Positions count everybody in front, from 0."""
    views = [manager.open_session() for _ in range(3)]
    assert [(view.status, view.position) for view in views] == [("active", 0), ("waiting", 1), ("waiting", 2)]


def test_who_leaves_in_the_middle_shifts_those_behind(manager: LabManager) -> None:
    """And nobody else."""
    ids = [manager.open_session().session_id for _ in range(4)]
    manager.end_session(ids[1], "test")
    assert positions(manager, [ids[0], ids[2], ids[3]]) == [("active", 0), ("waiting", 1), ("waiting", 2)]


def test_an_ended_session_is_gone_with_its_reason(manager: LabManager) -> None:
    """Also for the second DELETE."""
    session_id = manager.open_session().session_id
    manager.end_session(session_id, "its owner ended it")
    for call in (manager.session, manager.heartbeat, manager.desk.lab, lambda gone: manager.end_session(gone, "again")):
        with pytest.raises(SessionNotFound, match="its owner ended it"):
            call(session_id)


def test_the_next_is_promoted_in_the_call_that_ends_a_session_without_lab(manager: LabManager) -> None:
    """Nothing has to be torn down, so nobody waits."""
    first, second = manager.open_session().session_id, manager.open_session().session_id
    manager.end_session(first, "test")
    assert positions(manager, [second]) == [("active", 0)]
    assert second == manager.active_session().session_id


def test_the_head_waits_while_the_lab_before_it_goes_down(manager: LabManager, runner: FakeRunner) -> None:
    """The end of the session is on disk at once; the slot is free only when the lab is."""
    first, second = manager.open_session().session_id, manager.open_session().session_id
    manager.desk.acquire(first, yaml_file(), [], reuse=True)
    runner.may_stop.clear()
    manager.end_session(first, "test")
    assert positions(manager, [second]) == [("waiting", 0)]
    with pytest.raises(SessionWaiting):
        manager.desk.lab(second)
    runner.may_stop.set()
    wait_until(lambda: manager.session(second).status == "active", "the next is active")


def test_promotion_happens_when_the_teardown_fails(manager: LabManager, runner: FakeRunner) -> None:
    """A lab that will not go must not stop the queue."""
    first, second = manager.open_session().session_id, manager.open_session().session_id
    manager.desk.acquire(first, yaml_file(), [], reuse=True)
    runner.stop_fails = True
    manager.end_session(first, "test")
    wait_until(lambda: manager.session(second).status == "active", "the next is active")


def test_slots_give_as_many_active_sessions(manager: LabManager) -> None:
    """The first N of the queue; a slot that is left is taken by the next."""
    manager.config = replace(manager.config, slots=2)
    ids = [manager.open_session().session_id for _ in range(4)]
    assert positions(manager, ids) == [("active", 0), ("active", 1), ("waiting", 2), ("waiting", 3)]
    manager.end_session(ids[0], "test")
    assert positions(manager, ids[1:]) == [("active", 0), ("active", 1), ("waiting", 2)]


def test_a_full_queue_says_so(manager: LabManager) -> None:
    """Before it says anything else."""
    manager.config = replace(manager.config, max_waiting=1)
    manager.open_session()
    manager.open_session()
    with pytest.raises(QueueFull, match="1 sessions are waiting"):
        manager.open_session()


def test_an_empty_queue_has_no_head(manager: LabManager) -> None:
    """404, not an empty answer."""
    with pytest.raises(NoActiveSession):
        manager.active_session()


def test_tickets_are_never_given_twice(make_manager: Callable[[], LabManager]) -> None:
    """A session that comes after all others have gone, and after a restart, is behind them in time."""
    manager = make_manager()
    first = manager.open_session().session_id
    manager.end_session(first, "test")
    with manager.database.write() as transaction:
        transaction.execute(delete(Session))
    make_manager().open_session()
    with manager.database.read() as transaction:
        assert list(transaction.scalars(select(Session.ticket))) == [2]
