"""The reaper's rounds, with time passed in, and what a restarted server finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from fakes import FakeClock, FakeRunner, wait_until, yaml_file
from sqlalchemy import text
from sqlalchemy.orm import Session as Transaction

from remote_lab.core import sessions
from remote_lab.core.manager import LabManager
from remote_lab.core.models import Session
from remote_lab.core.reaper import BUSY_CHANGES, Reaper
from remote_lab.core.sessions import Wish
from remote_lab.errors import LabTeardownFailed, SessionNotFound


def is_gone(manager: LabManager, session_id: str) -> bool:
    try:
        manager.session(session_id)
    except SessionNotFound:
        return True
    return False


def test_silence_ends_a_session_and_the_next_follows(manager: LabManager, reaper: Reaper, clock: FakeClock) -> None:
    """An active one after 300 s, and no sooner."""
    first, second = manager.open_session().session_id, manager.open_session().session_id
    clock.seconds += 300
    manager.touch(second)
    reaper.tick()
    assert not is_gone(manager, first)
    clock.seconds += 1
    reaper.tick()
    assert manager.session(second).status == "active"
    with pytest.raises(SessionNotFound, match="silent for 301 s, active sessions may 300 s"):
        manager.session(first)


def test_a_waiting_session_may_be_silent_for_longer(manager: LabManager, reaper: Reaper, clock: FakeClock) -> None:
    """600 s."""
    first, second = manager.open_session().session_id, manager.open_session().session_id
    for silence, gone in ((600, False), (1, True)):
        clock.seconds += silence
        manager.touch(first)
        reaper.tick()
        assert gone == is_gone(manager, second)


def test_a_session_that_is_being_opened_is_not_silent(
    manager: LabManager, reaper: Reaper, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reaper looks between the moment when it is seen and the one when it is on disk."""
    first = manager.open_session().session_id
    clock.seconds += 5000
    manager.touch(first)
    position = sessions.position

    def looked_at(transaction: Transaction, session: Session) -> int:
        clock.seconds += 1
        reaper._end_silent_sessions()
        return position(transaction, session)

    with monkeypatch.context() as patch:
        patch.setattr(sessions, "position", looked_at)
        session_id = manager.open_session().session_id
    reaper.tick()
    assert not is_gone(manager, session_id)


def test_promotion_starts_the_clock_again(manager: LabManager, reaper: Reaper, clock: FakeClock) -> None:
    """Who was silent for 500 s of waiting has 300 s from its promotion."""
    first, second = manager.open_session().session_id, manager.open_session().session_id
    clock.seconds += 500
    manager.end_session(first, "test")
    clock.seconds += 250
    reaper.tick()
    assert not is_gone(manager, second)


def test_a_session_whose_lab_boots_is_never_silent(
    manager: LabManager, reaper: Reaper, clock: FakeClock, runner: FakeRunner
) -> None:
    """The clock starts again when the boot ends, however long it took and whoever still waits for it."""
    import threading

    session_id = manager.open_session().session_id
    runner.may_boot.clear()
    boot = threading.Thread(target=manager.desk.acquire, args=(session_id, yaml_file(), [], True))
    boot.start()
    assert runner.boot_began.wait(10)
    clock.seconds += 5000
    reaper.tick()
    assert not is_gone(manager, session_id)
    runner.may_boot.set()
    boot.join()
    clock.seconds += 299
    reaper.tick()
    assert not is_gone(manager, session_id)


def test_a_silent_session_loses_its_lab(
    manager: LabManager, reaper: Reaper, clock: FakeClock, runner: FakeRunner
) -> None:
    """A client that died leaves nothing."""
    session_id = manager.open_session().session_id
    manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    clock.seconds += 301
    reaper.tick()
    wait_until(lambda: runner.pods == set(), "the lab is down")


def test_an_idle_lab_goes_down_and_its_session_stays(
    manager: LabManager, reaper: Reaper, clock: FakeClock, runner: FakeRunner
) -> None:
    """After 1800 s without a reference, counted from the last use."""
    session_id = manager.open_session().session_id
    manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    clock.seconds += 2000
    manager.touch(session_id)
    reaper.tick()
    assert manager.inspection.lab(session_id).running
    manager.desk.release(session_id)
    clock.seconds += 1800
    manager.touch(session_id)
    reaper.tick()
    assert manager.inspection.lab(session_id).running
    clock.seconds += 1
    reaper.tick()
    wait_until(lambda: runner.pods == set(), "the lab is down")
    assert not manager.inspection.lab(session_id).running


def test_a_warm_lab_waits_for_the_next_session(
    manager: LabManager, reaper: Reaper, clock: FakeClock, runner: FakeRunner
) -> None:
    """It is nobody's until the same is uploaded; then it is there at once, and counts as that session's own."""
    manager.config = replace(manager.config, warm_seconds=60)
    first, second = manager.open_session().session_id, manager.open_session().session_id
    manager.desk.acquire(first, yaml_file(), [], reuse=True)
    manager.desk.release(first)
    manager.end_session(first, "test")
    assert manager.session(second).status == "active"
    assert manager.inspection.lab(second).state is None
    assert not manager.desk.destroy(second, force=True)
    reaper.tick()
    assert manager.desk.acquire(second, yaml_file(), [], reuse=True).reused
    assert manager.inspection.lab(second).running
    manager.end_session(second, "test")
    wait_until(lambda: runner.pods == set(), "a lab that is still referenced goes down with its session")


@pytest.mark.parametrize("text_and_reuse", [("nodes: [r1, r2]\n", True), ("nodes: [r1]\n", False)])
def test_a_warm_lab_gives_way(manager: LabManager, runner: FakeRunner, text_and_reuse: tuple[str, bool]) -> None:
    """To another topology, and to who wants a fresh one."""
    manager.config = replace(manager.config, warm_seconds=60)
    first = manager.open_session().session_id
    manager.desk.acquire(first, yaml_file(), [], reuse=True)
    manager.desk.release(first)
    manager.end_session(first, "test")
    second = manager.open_session().session_id
    topology, reuse = text_and_reuse
    assert not manager.desk.acquire(second, yaml_file(topology), [], reuse=reuse).reused
    assert [kind for kind, _ in runner.calls] == ["boot", "stop", "boot"]


def test_a_warm_lab_that_nobody_wants_goes_down(
    manager: LabManager, reaper: Reaper, clock: FakeClock, runner: FakeRunner
) -> None:
    """After its time, also while a session that does not want it is active in its slot."""
    manager.config = replace(manager.config, warm_seconds=60)
    first = manager.open_session().session_id
    manager.desk.acquire(first, yaml_file(), [], reuse=True)
    manager.desk.release(first)
    manager.end_session(first, "test")
    second = manager.open_session().session_id
    clock.seconds += 61
    reaper.tick()
    wait_until(lambda: runner.pods == set(), "the lab is down")
    assert manager.session(second).status == "active"


def test_a_lab_used_again_between_look_and_act_is_kept(manager: LabManager, clock: FakeClock) -> None:
    """The reaper found it idle; then somebody acquired it."""
    session_id = manager.open_session().session_id
    manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    lab_id = manager.workspaces.present()[0]
    manager.desk.take_down_idle(lab_id, "unused")
    assert manager.inspection.lab(session_id).running


def test_a_dead_lab_is_cleaned_up(manager: LabManager, reaper: Reaper, runner: FakeRunner) -> None:
    """Its session goes on without it."""
    session_id = manager.open_session().session_id
    manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    runner.dead[manager.workspaces.present()[0]] = "its pod is gone"
    reaper.tick()
    wait_until(lambda: not manager.inspection.lab(session_id).running and runner.pods == set(), "it is cleaned up")


def test_orphans_are_ended(manager: LabManager, reaper: Reaper, runner: FakeRunner) -> None:
    """What runs and is in no record; what is on record stays."""
    session_id = manager.open_session().session_id
    manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    runner.pods.add("nobody's")
    reaper.tick()
    assert runner.calls[1:] == [("end orphan", "nobody's")]


def test_a_step_that_fails_does_not_stop_the_others(
    manager: LabManager, reaper: Reaper, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged and comes again."""

    def fail(*_args: object) -> None:
        raise OSError("no /proc today")

    first, second = manager.open_session().session_id, manager.open_session().session_id
    monkeypatch.setattr(manager.runner, "vanished", fail)
    monkeypatch.setattr(manager.runner, "orphans", fail)
    manager.desk.acquire(first, yaml_file(), [], reuse=False)
    clock.seconds += 301
    manager.touch(second)
    reaper.tick()
    assert is_gone(manager, first)


def test_a_lease_that_is_over_ends_its_session(manager: LabManager, reaper: Reaper, clock: FakeClock) -> None:
    """However lively it is; the next has its turn."""
    first = manager.open_session(Wish(lease_seconds=60)).session_id
    second = manager.open_session().session_id
    reaper.tick()
    assert not is_gone(manager, first)
    with manager.database.write() as transaction:
        transaction.execute(text("UPDATE sessions SET lease_expires_at = '2020-01-01 00:00:00.000000' WHERE slot = 1"))
    manager.touch(first)
    reaper.tick()
    assert manager.session(second).status == "active"
    with pytest.raises(SessionNotFound, match="its lease was over at"):
        manager.session(first)


def test_without_a_limit_a_session_may_be_active_for_ever(manager: LabManager) -> None:
    """REMOTE_LAB_LEASE_SECONDS=0; who wishes for an end gets one."""
    manager.config = replace(manager.config, lease_seconds=0, slots=2)
    assert manager.open_session().lease_expires_at is None
    assert manager.open_session(Wish(lease_seconds=5)).lease_expires_at is not None


def test_a_call_in_flight_is_a_sign_of_life(manager: LabManager, reaper: Reaper, clock: FakeClock) -> None:
    """A held request keeps its session for as long as it is held, and says nothing about the time after it."""
    session_id = manager.open_session().session_id
    with manager.sessions_seen.present(session_id):
        clock.seconds += 5000
        reaper.tick()
        assert not is_gone(manager, session_id)
    reaper.tick()
    assert is_gone(manager, session_id)


def test_cadence(manager: LabManager, reaper: Reaper) -> None:
    """30 s when idle, 15 s with one active session alone, 5 s when busy."""
    assert reaper.tick() == 30
    manager.open_session()
    assert reaper.tick() == 15
    manager.open_session()
    assert reaper.tick() == 5


def test_traffic_keeps_the_cadence_up(manager: LabManager, reaper: Reaper) -> None:
    """What ends in a second is forgotten in time, although nobody is in the queue when the loop looks."""
    for _ in range(BUSY_CHANGES // 2):
        manager.end_session(manager.open_session().session_id, "test")
    assert reaper.tick() == 5
    assert reaper.tick() == 30


def test_ended_sessions_are_forgotten_after_a_day(manager: LabManager, reaper: Reaper) -> None:
    """And the labs they had."""
    session_id = manager.open_session().session_id
    manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    manager.end_session(session_id, "test")
    wait_until(lambda: manager.boots.find(session_id) is None and not manager.workspaces.present(), "it is down")
    with manager.database.write() as transaction:
        transaction.execute(text("UPDATE sessions SET ended_at = '2020-01-01 00:00:00.000000'"))
    reaper.tick()
    with manager.database.read() as transaction:
        assert tuple(transaction.execute(text("SELECT (SELECT count(*) FROM sessions), count(*) FROM labs")).one()) == (
            0,
            0,
        )


def test_a_restart_keeps_queue_references_and_the_running_lab(
    make_manager: Callable[[], LabManager], runner: FakeRunner
) -> None:
    """A second server on the same state; nothing told the first that it would end."""
    before = make_manager()
    ids = [before.open_session().session_id for _ in range(3)]
    before.desk.acquire(ids[0], yaml_file(), [], reuse=True)
    before.desk.acquire(ids[0], yaml_file(), [], reuse=True)
    after = make_manager()
    Reaper(after).recover()
    assert [(view.status, view.position) for view in map(after.session, ids)] == [
        ("active", 0),
        ("waiting", 1),
        ("waiting", 2),
    ]
    assert before.inspection.lab(ids[0]) == after.inspection.lab(ids[0])
    assert after.inspection.lab(ids[0]).ref_count == 2
    assert after.desk.acquire(ids[0], yaml_file(), [], reuse=True).reused
    assert [kind for kind, _ in runner.calls] == ["boot"]


def test_silence_while_the_server_was_down_counts_for_nobody(
    make_manager: Callable[[], LabManager], clock: FakeClock
) -> None:
    """The clocks start again with the server."""
    ids = [make_manager().open_session().session_id for _ in range(2)]
    clock.seconds += 100_000
    after = make_manager()
    Reaper(after).recover()
    assert [after.session(one).status for one in ids] == ["active", "waiting"]


def test_a_lab_that_died_with_the_server_is_on_record_as_dead(
    make_manager: Callable[[], LabManager], runner: FakeRunner
) -> None:
    """The host was rebooted: state on disk, nothing running."""
    before = make_manager()
    session_id = before.open_session().session_id
    before.desk.acquire(session_id, yaml_file(), [], reuse=True)
    runner.dead[runner.pods.pop()] = "its pod is gone"
    after = make_manager()
    Reaper(after).recover()
    wait_until(lambda: after.workspaces.present() == [], "it is cleaned up")
    assert not after.inspection.lab(session_id).running
    with after.database.read() as transaction:
        assert transaction.execute(text("SELECT failure FROM labs")).scalar_one() == "died: its pod is gone"
    assert not after.desk.acquire(session_id, yaml_file(), [], reuse=True).reused


@pytest.mark.parametrize("state", ["starting", "stopping"])
def test_what_was_half_done_is_cleaned_up(
    make_manager: Callable[[], LabManager], runner: FakeRunner, state: str
) -> None:
    """A boot or teardown that died with its server frees the slot once it is cleaned up."""
    before = make_manager()
    first, second = before.open_session().session_id, before.open_session().session_id
    before.desk.acquire(first, yaml_file(), [], reuse=True)
    with before.database.write() as transaction:
        transaction.execute(text(f"UPDATE labs SET state = '{state}', running_at = NULL"))
        transaction.execute(text("UPDATE sessions SET state = 'ended' WHERE ticket = 1"))
    after = make_manager()
    Reaper(after).recover()
    wait_until(lambda: after.session(second).status == "active", "the next is active")
    assert set() == runner.pods


def test_an_orphan_that_does_not_end_keeps_nobody_from_the_others(
    manager: LabManager, reaper: Reaper, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again in every round, the others are ended in the first."""
    end, tried = runner.end_orphan, []

    def end_but_one(lab_id: str) -> None:
        tried.append(lab_id)
        if lab_id == "a stubborn one":
            raise LabTeardownFailed("processes 1, 2 of its sandbox do not end")
        end(lab_id)

    monkeypatch.setattr(runner, "end_orphan", end_but_one)
    runner.pods |= {"a stubborn one", "b", "c"}
    reaper.tick()
    assert runner.pods == {"a stubborn one"}
    reaper.tick()
    assert tried.count("a stubborn one") == 2


def test_a_lab_that_cannot_be_looked_at_is_not_taken_down(
    make_manager: Callable[[], LabManager], runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host without a process left says nothing about labs; the server starts all the same."""
    before = make_manager()
    session_id = before.open_session().session_id
    before.desk.acquire(session_id, yaml_file(), [], reuse=True)

    def fail(*_args: object) -> None:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(runner, "probe", fail)
    after = make_manager()
    Reaper(after).recover()
    assert after.inspection.lab(session_id).running


def test_a_folder_that_cannot_be_removed_holds_no_slot(
    manager: LabManager, reaper: Reaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next has its turn; the folder goes when it can."""
    first, second = manager.open_session().session_id, manager.open_session().session_id
    manager.desk.acquire(first, yaml_file(), [], reuse=True)
    discard = manager.workspaces.discard

    def fail(*_args: object, **_named: object) -> None:
        raise OSError("Device or resource busy")

    monkeypatch.setattr(manager.workspaces, "discard", fail)
    manager.end_session(first, "test")
    wait_until(lambda: manager.session(second).status == "active", "the next is active")
    reaper.tick()
    assert len(manager.workspaces.present()) == 1
    monkeypatch.setattr(manager.workspaces, "discard", discard)
    reaper.tick()
    assert manager.workspaces.present() == []


def test_devices_that_died_are_said_once_and_given_to_nobody_else(
    manager: LabManager, reaper: Reaper, runner: FakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """Who uses the lab keeps what is left of it; an acquire of the idle lab boots it anew."""
    session_id = manager.open_session().session_id
    devices = manager.desk.acquire(session_id, yaml_file(), [], reuse=True).devices
    runner.dead_names = {devices[0]["name"]}
    for _ in range(3):
        reaper.tick()
    assert caplog.text.count(f"Of the lab: not running: {devices[0]['name']}.") == 1
    assert manager.desk.acquire(session_id, yaml_file(), [], reuse=True).reused
    for _ in range(2):
        manager.desk.release(session_id)
    assert not manager.desk.acquire(session_id, yaml_file(), [], reuse=True).reused
