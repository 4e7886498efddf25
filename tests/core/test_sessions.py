"""The queue: strict FIFO, slots, and who is told what."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
from fakes import FakeRunner, wait_until, yaml_file
from sqlalchemy import delete, select

from remote_lab.core import overview
from remote_lab.core.manager import LabManager
from remote_lab.core.models import Session
from remote_lab.core.sessions import Occupant, Wish, choose_place
from remote_lab.errors import NoActiveSession, QueueFull, SessionNotFound


def positions(manager: LabManager, ids: list[str]) -> list[tuple[str, int]]:
    views = [manager.session(session_id) for session_id in ids]
    return [(view.status, view.position) for view in views]


STOPPING, WARM = Occupant("gone", True, False, "x"), Occupant("gone", False, True, "x")
OURS, OTHERS = Occupant("me", False, False, "x"), Occupant("other", False, False, "x")


@pytest.mark.parametrize(
    ("places", "occupants", "wanted", "chosen"),
    [
        ([2, 1, 3], {}, None, 1),
        ([1, 2, 3], {1: WARM, 3: OURS}, None, 3),
        ([1, 2], {7: OURS}, None, 7),
        ([1, 2], {2: WARM}, "x", 2),
        ([1, 2], {1: WARM}, "y", 1),
        ([1, 2], {1: STOPPING}, "x", 2),
        ([1, 2], {1: OTHERS, 2: STOPPING}, "x", 2),
        ([1], {1: OTHERS}, "x", 1),
        ([1, 2], {1: replace(STOPPING, session_id="me")}, None, 2),
    ],
)
def test_a_session_gets_the_place_that_suits_it_best(
    places: list[int], occupants: dict[int, Occupant], wanted: str | None, chosen: int
) -> None:
    """Where its lab is, else where it is free, else where a lab goes down; somebody else's last."""
    assert chosen == choose_place(places, occupants, "me", wanted)


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
    for call in (
        manager.session,
        manager.heartbeat,
        manager.inspection.lab,
        lambda gone: manager.end_session(gone, "again"),
    ):
        with pytest.raises(SessionNotFound, match="its owner ended it"):
            call(session_id)


def test_the_next_is_promoted_in_the_call_that_ends_a_session_without_lab(manager: LabManager) -> None:
    """Nothing has to be torn down, so nobody waits."""
    first, second = manager.open_session().session_id, manager.open_session().session_id
    manager.end_session(first, "test")
    assert positions(manager, [second]) == [("active", 0)]
    assert second == manager.active_session().session_id


def test_nobody_waits_for_the_lab_of_the_one_before(manager: LabManager, runner: FakeRunner) -> None:
    """The next is active at once; what it acquires boots when the lab before it is down, which it can see."""
    first, second = manager.open_session().session_id, manager.open_session().session_id
    manager.desk.acquire(first, yaml_file(), [], reuse=True)
    runner.may_stop.clear()
    manager.end_session(first, "test")
    assert positions(manager, [second]) == [("active", 0)]
    before = manager.inspection.lab(second)
    assert (before.running, before.state, before.topology, before.identity) == (False, "stopping", None, None)
    assert manager.desk.acquire_without_waiting(second, yaml_file(), [], reuse=True) is None
    assert [kind for kind, _ in runner.calls] == ["boot", "stop"]
    runner.may_stop.set()
    wait_until(lambda: manager.inspection.lab(second).running, "its lab is up")
    assert [kind for kind, _ in runner.calls] == ["boot", "stop", "boot"]


def test_who_leaves_during_the_teardown_before_it_leaves_the_queue_moving(
    manager: LabManager, runner: FakeRunner
) -> None:
    """One teardown for all of them, and the acquire of the one who left boots nothing."""
    ids = [manager.open_session().session_id for _ in range(3)]
    manager.desk.acquire(ids[0], yaml_file(), [], reuse=True)
    runner.may_stop.clear()
    manager.end_session(ids[0], "test")
    manager.desk.acquire_without_waiting(ids[1], yaml_file(), [], reuse=True)
    manager.end_session(ids[1], "test")
    assert positions(manager, [ids[2]]) == [("active", 0)]
    runner.may_stop.set()
    assert manager.desk.acquire(ids[2], yaml_file(), [], reuse=True).reused is False
    assert [kind for kind, _ in runner.calls] == ["boot", "stop", "boot"]


def test_promotion_happens_when_the_teardown_fails(manager: LabManager, runner: FakeRunner) -> None:
    """A lab that will not go must not stop the queue, nor the next lab."""
    first, second = manager.open_session().session_id, manager.open_session().session_id
    manager.desk.acquire(first, yaml_file(), [], reuse=True)
    runner.stop_fails = True
    manager.end_session(first, "test")
    assert positions(manager, [second]) == [("active", 0)]
    assert manager.desk.acquire(second, yaml_file(), [], reuse=True).reused is False


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


def test_a_ci_job_ends_everything_it_left_at_once(manager: LabManager, caplog: pytest.LogCaptureFixture) -> None:
    """By its id or its URL, waiting or active; the next is promoted, and never one of the same job."""
    its, url = Wish(ci_job_id="4711"), "https://ci.example.org/jobs/4711"
    active = manager.open_session(its).session_id
    waiting = [manager.open_session(its).session_id for _ in range(2)]
    other = manager.open_session(Wish(ci_job_id="47110")).session_id
    by_url = manager.open_session(Wish(ci_job_url=url)).session_id
    with caplog.at_level(logging.INFO, logger="remote_lab"):
        assert manager.end_ci_job("4711") == 3
    assert [record.message for record in caplog.records if "ended" in record.message] == [
        "Session ended: its CI job gave it back"
    ] * 3
    with manager.database.read() as transaction:
        ended = {one.session_id: one for one in overview.ended_sessions(transaction, 10)}
    assert set(ended) == {active, *waiting}
    assert {one.end_reason for one in ended.values()} == {"its CI job gave it back"}
    assert [one for one in waiting if ended[one].activated_at] == []
    assert positions(manager, [other, by_url]) == [("active", 0), ("waiting", 1)]
    assert (manager.end_ci_job(url), manager.end_ci_job(url), manager.end_ci_job("nobody's")) == (1, 0, 0)


def test_a_ci_job_that_goes_takes_its_lab_down(manager: LabManager, runner: FakeRunner) -> None:
    """Who comes next is promoted meanwhile, as after any other session."""
    first = manager.open_session(Wish(ci_job_id="4711")).session_id
    second = manager.open_session().session_id
    manager.desk.acquire(first, yaml_file(), [], reuse=True)
    runner.may_stop.clear()
    assert manager.end_ci_job("4711") == 1
    assert positions(manager, [second]) == [("active", 0)]
    runner.may_stop.set()
    wait_until(lambda: not manager.health().labs, "the lab is down")
    assert [kind for kind, _ in runner.calls] == ["boot", "stop"]


def test_everybody_sees_how_many_wait(manager: LabManager) -> None:
    """Who is active as well: it is the one who can yield."""
    ids = [manager.open_session().session_id for _ in range(3)]
    assert [manager.session(one).waiting for one in ids] == [2, 2, 2]
    manager.end_session(ids[0], "test")
    assert [manager.session(one).waiting for one in ids[1:]] == [1, 1]
