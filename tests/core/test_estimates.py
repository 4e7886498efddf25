"""Estimates: the arithmetic, and what it is fed with."""

from __future__ import annotations

from datetime import timedelta
from statistics import median

import pytest
from fakes import FakeRunner, wait_until, yaml_file
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from remote_lab.core import estimates
from remote_lab.core.estimates import turn_in_seconds
from remote_lab.core.manager import LabManager


@pytest.mark.parametrize(
    ("busy", "free_slots", "waiting_in_front", "expected"),
    [
        ([30.0], 0, 0, 30),
        ([30.0], 0, 2, 30 + 2 * 100),
        ([], 1, 0, 0),
        ([30.0, 50.0], 0, 0, 30),
        ([30.0, 50.0], 0, 1, 50),
        ([30.0, 50.0], 0, 2, 130),
        ([30.0], 1, 1, 30),
    ],
)
def test_turns_are_played_through(busy: list[float], free_slots: int, waiting_in_front: int, expected: float) -> None:
    """Each in front takes the slot that is free first, and holds it for 100 s."""
    assert expected == turn_in_seconds(busy, free_slots, waiting_in_front, hold_seconds=100)


@given(
    busy=st.lists(st.integers(0, 500), max_size=4),
    free_slots=st.integers(0, 3),
    waiting_in_front=st.integers(0, 60),
    hold_seconds=st.integers(1, 120),
)
def test_turns_are_counted_as_if_they_were_played(
    busy: list[int], free_slots: int, waiting_in_front: int, hold_seconds: int
) -> None:
    """Without going through everybody in front, who may be thousands."""
    slots = sorted([float(one) for one in busy] + [0.0] * (free_slots or not busy))
    free_slots = len(slots) - len(busy)
    for _ in range(waiting_in_front):
        slots = sorted([slots[0] + hold_seconds, *slots[1:]])
    assert turn_in_seconds(busy, free_slots, waiting_in_front, hold_seconds) == pytest.approx(slots[0])


def test_nothing_is_promised_before_something_was_measured(manager: LabManager) -> None:
    """None, not a guess."""
    manager.open_session()
    assert manager.session(manager.open_session().session_id).eta_seconds is None


def hold(manager: LabManager, seconds: int, topology: str | None = None) -> None:
    """A session that had its slot for so long, with this lab."""
    session_id = manager.open_session().session_id
    if topology is not None:
        manager.desk.acquire(session_id, yaml_file(topology), [], reuse=True)
    manager.end_session(session_id, "test")
    wait_until(lambda: manager.workspaces.present() == [], "its lab is down")
    with manager.database.write() as transaction:
        change = f"UPDATE sessions SET activated_at = datetime(ended_at, '-{seconds} seconds') || '.000000'"
        transaction.execute(text(f"{change} WHERE id = '{session_id}'"))


def test_the_median_of_earlier_sessions_counts(manager: LabManager) -> None:
    """One that was forgotten for a day does not."""
    for seconds in (90, 100, 110, 86_400):
        hold(manager, seconds)
    with manager.database.read() as transaction:
        assert median(estimates.recent_holds(transaction)) == pytest.approx(105, abs=1)
    first = manager.open_session()
    assert first.eta_seconds == 0
    assert manager.open_session().eta_seconds == pytest.approx(105, abs=2)
    assert manager.open_session().eta_seconds == pytest.approx(210, abs=3)


def test_the_lab_of_the_one_in_front_counts_where_it_is_known(manager: LabManager, runner: FakeRunner) -> None:
    """Sessions with that lab took long, the others did not."""
    hold(manager, 1000, "nodes: [slow]\n")
    for _ in range(5):
        hold(manager, 10)
    first = manager.open_session().session_id
    waiting = manager.open_session()
    assert waiting.eta_seconds == pytest.approx(10, abs=1)
    manager.desk.acquire(first, yaml_file("nodes: [slow]\n"), [], reuse=True)
    eta_seconds = manager.session(waiting.session_id).eta_seconds
    assert eta_seconds is not None
    assert eta_seconds > timedelta(minutes=10).total_seconds()


def test_a_boot_is_expected_to_take_as_long_as_the_same_did_before(manager: LabManager, runner: FakeRunner) -> None:
    """Unknown for the first, measured for the second."""
    session_id = manager.open_session().session_id
    for expected in (None, 60.0):
        runner.may_boot.clear()
        assert manager.desk.acquire_without_waiting(session_id, yaml_file(), [], reuse=True) is None
        view = manager.inspection.lab(session_id)
        assert view.state == "starting"
        assert view.eta_seconds == (expected and pytest.approx(expected, abs=2))
        runner.may_boot.set()
        wait_until(lambda: manager.inspection.lab(session_id).running, "it is up")
        with manager.database.write() as transaction:
            transaction.execute(text("UPDATE labs SET created_at = datetime(running_at, '-60 seconds') || '.000000'"))
        manager.desk.destroy(session_id, force=True)
        wait_until(lambda: manager.inspection.lab(session_id).state is None, "it is down")
