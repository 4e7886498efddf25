"""Boots, teardowns and the races between their users, each with the other party injected."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from fakes import WAIT_SECONDS, FakeRunner, wait_until, yaml_file

from remote_lab.core.boots import Job
from remote_lab.core.manager import LabManager
from remote_lab.core.views import Acquired
from remote_lab.core.waiting import Room
from remote_lab.core.workspace import Upload
from remote_lab.errors import (
    LabBootCancelled,
    LabBootFailed,
    LabBusy,
    LabInUse,
    LabNotFound,
    SessionNotFound,
    SshKeyNotFound,
    TooManyHeldRequests,
)

OTHER = "nodes: [r1, r2]\n"


@pytest.fixture
def session_id(manager: LabManager) -> str:
    return manager.open_session().session_id


@pytest.fixture
def acquire(manager: LabManager, session_id: str) -> Callable[..., Future[Acquired]]:
    """Acquire on a thread of its own, as the server does."""
    pool = ThreadPoolExecutor(8)

    def start(text: str = "nodes: [r1]\n", reuse: bool = True) -> Future[Acquired]:
        return pool.submit(manager.desk.acquire, session_id, yaml_file(text), [], reuse)

    return start


def kinds(runner: FakeRunner) -> list[str]:
    return [kind for kind, _ in runner.calls]


def test_a_lab_is_booted_once_and_shared(manager: LabManager, session_id: str, runner: FakeRunner) -> None:
    """Every acquire of the same content is one more reference and no boot."""
    first = manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    second = manager.desk.acquire(session_id, yaml_file(name="other-name.yaml"), [], reuse=True)
    assert (first.reused, second.reused) == (False, True)
    assert first.devices == second.devices == [{"name": "r1", "raw": {"name": "r1", "id": 1}}]
    assert kinds(runner) == ["boot"]
    assert manager.inspection.lab(session_id).ref_count == 2


def test_references_stop_at_zero(manager: LabManager, session_id: str) -> None:
    """One release too many is no error while the lab runs."""
    manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    for _ in range(3):
        manager.desk.release(session_id)
    view = manager.inspection.lab(session_id)
    assert (view.running, view.ref_count) == (True, 0)


def test_an_idle_lab_gives_way_to_another(manager: LabManager, session_id: str, runner: FakeRunner) -> None:
    """Down first, then the next up."""
    manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    with pytest.raises(LabBusy):
        manager.desk.acquire(session_id, yaml_file(OTHER), [], reuse=True)
    manager.desk.release(session_id)
    assert not manager.desk.acquire(session_id, yaml_file(OTHER), [], reuse=True).reused
    assert kinds(runner) == ["boot", "stop", "boot"]


def test_nothing_but_running_labs_stays_on_disk(manager: LabManager, session_id: str) -> None:
    """Neither uploads that were refused or shared nor labs that are down."""
    manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    with pytest.raises(LabBusy):
        manager.desk.acquire(session_id, yaml_file(OTHER), [], reuse=False)
    assert len(manager.workspaces.present()) == 1
    manager.end_session(session_id, "test")
    wait_until(lambda: manager.workspaces.present() == [], "the workspace is empty")


def test_two_acquires_at_once_are_one_boot(
    acquire: Callable[..., Future[Acquired]], manager: LabManager, session_id: str, runner: FakeRunner
) -> None:
    """The second comes while the first boots, joins it and gets its devices."""
    runner.may_boot.clear()
    first = acquire()
    assert runner.boot_began.wait(WAIT_SECONDS)
    second = acquire()
    with pytest.raises(LabBusy):
        manager.desk.acquire(session_id, yaml_file(OTHER), [], reuse=True)
    runner.may_boot.set()
    results = [first.result(WAIT_SECONDS), second.result(WAIT_SECONDS)]
    assert [result.reused for result in results] == [False, True]
    assert results[0].devices == results[1].devices
    assert kinds(runner) == ["boot"]


def test_a_failed_boot_frees_the_slot_and_tells_all_who_waited(
    acquire: Callable[..., Future[Acquired]], manager: LabManager, session_id: str, runner: FakeRunner
) -> None:
    """With phase and log; the next acquire boots again."""
    runner.may_boot.clear()
    runner.boot_fails = True
    waiters = [acquire()]
    assert runner.boot_began.wait(WAIT_SECONDS)
    waiters.append(acquire())
    wait_until(lambda: reference_count(manager) == 2, "the second has joined")
    runner.may_boot.set()
    for waiter in waiters:
        with pytest.raises(LabBootFailed) as failure:
            waiter.result(WAIT_SECONDS)
        assert (failure.value.phase, failure.value.log_tail) == ("start", "the end of the log")
    runner.boot_fails = False
    assert not acquire().result(WAIT_SECONDS).reused


def reference_count(manager: LabManager) -> int:
    from sqlalchemy import func, select

    from remote_lab.core.models import LabReference

    with manager.database.read() as transaction:
        return transaction.scalar(select(func.count()).select_from(LabReference)) or 0


def test_a_defect_of_the_runner_is_a_failed_boot(manager: LabManager, session_id: str, runner: FakeRunner) -> None:
    """Cleaned up like any other, and no thread hangs."""
    runner.boot_raises = ZeroDivisionError("oops")
    with pytest.raises(LabBootFailed, match="ZeroDivisionError, see the server's log"):
        manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    assert kinds(runner) == ["boot", "stop"]
    assert not manager.inspection.lab(session_id).running


def test_destroying_a_lab_ends_its_boot(
    acquire: Callable[..., Future[Acquired]], manager: LabManager, session_id: str, runner: FakeRunner
) -> None:
    """Whoever waits for it is told why."""
    runner.may_boot.clear()
    waiting = acquire()
    assert runner.boot_began.wait(WAIT_SECONDS)
    with pytest.raises(LabInUse):
        manager.desk.destroy(session_id, force=False)
    assert manager.desk.destroy(session_id, force=True)
    with pytest.raises(LabBootCancelled, match="it was destroyed by its session"):
        waiting.result(WAIT_SECONDS)
    assert not manager.desk.destroy(session_id, force=True)
    assert set() == runner.pods


def test_ending_the_session_ends_its_boot(
    acquire: Callable[..., Future[Acquired]], manager: LabManager, session_id: str, runner: FakeRunner
) -> None:
    """The waiter learns that its session is gone, the next in the queue gets the slot."""
    behind = manager.open_session().session_id
    runner.may_boot.clear()
    waiting = acquire()
    assert runner.boot_began.wait(WAIT_SECONDS)
    manager.end_session(session_id, "its owner ended it")
    with pytest.raises(SessionNotFound, match="its owner ended it"):
        waiting.result(WAIT_SECONDS)
    wait_until(lambda: manager.session(behind).status == "active", "the next is active")


def test_a_lab_destroyed_in_the_moment_it_is_up_is_torn_down(
    manager: LabManager, session_id: str, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session ends after netlab has finished and before that is on record."""
    boot = runner.boot

    def boot_then_destroy(*args: object, **kwargs: object) -> object:
        devices = boot(*args, **kwargs)  # type: ignore[arg-type]
        manager.desk.destroy(session_id, force=True)
        return devices

    monkeypatch.setattr(runner, "boot", boot_then_destroy)
    with pytest.raises(LabBootCancelled):
        manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    wait_until(lambda: runner.pods == set(), "nothing runs")
    assert kinds(runner) == ["boot", "stop"]


def test_a_lab_destroyed_before_its_boot_has_ended_keeps_its_teardown(
    manager: LabManager, session_id: str, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is up on record and taken down while the thread that booted it has its last step to do."""
    end = manager.boots._end

    def destroy_then_end(job: Job) -> None:
        if job.devices is not None:
            runner.may_stop.clear()
            manager.desk.destroy(session_id, force=True)
        end(job)

    monkeypatch.setattr(manager.boots, "_end", destroy_then_end)
    manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    [(_, lab_id)] = [call for call in runner.calls if call[0] == "boot"]
    assert manager.boots.find(lab_id) is not None
    assert manager.desk.destroy(session_id, force=True)
    runner.may_stop.set()
    wait_until(lambda: not manager.health().labs, "the lab is down")
    assert kinds(runner) == ["boot", "stop"]
    assert manager.boots.find(lab_id) is None


def test_a_session_that_ends_between_upload_and_claim_gets_no_lab(
    manager: LabManager, session_id: str, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upload took long; meanwhile the session went."""
    store = manager.workspaces.store

    def store_then_end(*arguments: Any) -> Upload:
        upload = store(*arguments)
        manager.end_session(session_id, "silent")
        return upload

    monkeypatch.setattr(manager.workspaces, "store", store_then_end)
    with pytest.raises(SessionNotFound, match="silent"):
        manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    assert runner.calls == []
    assert manager.workspaces.present() == []


def test_an_acquire_waits_for_the_teardown_under_way(
    acquire: Callable[..., Future[Acquired]], manager: LabManager, session_id: str, runner: FakeRunner
) -> None:
    """DELETE /lab answers before the lab is down; the next acquire comes when it is."""
    manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    runner.may_stop.clear()
    assert manager.desk.destroy(session_id, force=True)
    assert manager.desk.destroy(session_id, force=True)
    again = acquire()
    with pytest.raises(LabNotFound):
        manager.inspection.devices(session_id)
    runner.may_stop.set()
    assert not again.result(WAIT_SECONDS).reused
    assert kinds(runner) == ["boot", "stop", "boot"]


def test_two_acquires_that_both_find_an_idle_lab_tear_it_down_once(
    acquire: Callable[..., Future[Acquired]], manager: LabManager, session_id: str, runner: FakeRunner
) -> None:
    """One boots, the other joins it."""
    manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    manager.desk.release(session_id)
    runner.may_stop.clear()
    both = [acquire(OTHER), acquire(OTHER)]
    wait_until(lambda: kinds(runner).count("stop") == 1, "the teardown has begun")
    runner.may_stop.set()
    assert sorted(future.result(WAIT_SECONDS).reused for future in both) == [False, True]
    assert kinds(runner) == ["boot", "stop", "boot"]


def test_a_lab_that_died_is_not_handed_out(manager: LabManager, session_id: str, runner: FakeRunner) -> None:
    """An attach finds it dead, cleans up and boots it again."""
    manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    runner.dead[next(iter(runner.pods))] = "its pod is gone"
    assert not manager.desk.acquire(session_id, yaml_file(), [], reuse=True).reused
    assert kinds(runner) == ["boot", "stop", "boot"]


def test_held_requests_never_take_all_threads(manager: LabManager, session_id: str, runner: FakeRunner) -> None:
    """The one too many is told to come back, and nothing of it stays."""
    manager.desk.acquires = Room(1)
    runner.may_boot.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(manager.desk.acquire, session_id, yaml_file(), [], True)
        assert runner.boot_began.wait(WAIT_SECONDS)
        with pytest.raises(TooManyHeldRequests):
            manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
        runner.may_boot.set()
        assert first.result(WAIT_SECONDS).devices


def test_a_stopping_server_ends_boots_and_tells_who_waits(
    acquire: Callable[..., Future[Acquired]], manager: LabManager, session_id: str, runner: FakeRunner
) -> None:
    """Also those that come after it has begun to stop."""
    runner.may_boot.clear()
    waiting = acquire()
    assert runner.boot_began.wait(WAIT_SECONDS)
    manager.boots.end_all("the server is stopping", WAIT_SECONDS)
    late = acquire()
    for future in (waiting, late):
        with pytest.raises(LabBootCancelled, match="the server is stopping"):
            future.result(WAIT_SECONDS)
    assert set() == runner.pods


def test_labs_of_two_slots_do_not_meet(make_manager: Callable[[], LabManager], runner: FakeRunner) -> None:
    """Same content, two sessions, two labs."""
    manager = make_manager()
    manager.config = replace(manager.config, slots=2)
    ids = [manager.open_session().session_id for _ in range(2)]
    assert [manager.desk.acquire(one, yaml_file(), [], reuse=True).reused for one in ids] == [False, False]
    assert len(runner.pods) == 2
    manager.end_session(ids[0], "test")
    wait_until(lambda: len(runner.pods) == 1, "one lab is down")
    assert manager.inspection.lab(ids[1]).running


def test_a_boot_says_how_long_it_takes_and_who_is_up(
    manager: LabManager, session_id: str, acquire: Callable[..., Future[Acquired]], runner: FakeRunner
) -> None:
    """While it starts, as far as its boot tells; when it runs, all devices; on the way down nobody is."""
    runner.may_boot.clear()
    booting = acquire()
    wait_until(lambda: manager.inspection.lab(session_id).ready == ["r1"], "its first device is up")
    view = manager.inspection.lab(session_id)
    assert (view.state, view.seconds is not None and 0 <= view.seconds < WAIT_SECONDS) == ("starting", True)
    runner.may_boot.set()
    booting.result(WAIT_SECONDS)
    view = manager.inspection.lab(session_id)
    assert (view.state, view.seconds, view.ready) == ("running", None, ["r1"])
    runner.may_stop.clear()
    manager.desk.destroy(session_id, force=True)
    view = manager.inspection.lab(session_id)
    assert (view.state, view.seconds, view.ready) == ("stopping", None, [])


def test_the_key_of_a_lab_is_for_its_session_while_it_runs(
    manager: LabManager, session_id: str, runner: FakeRunner
) -> None:
    """Without a lab there is none; a lab of a provider that makes none says so."""
    with pytest.raises(LabNotFound):
        manager.inspection.login_key(session_id)
    manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    with pytest.raises(SshKeyNotFound, match="provider 'fake'"):
        manager.inspection.login_key(session_id)
    runner.key = "the key"
    assert manager.inspection.login_key(session_id) == "the key"


def test_collectors_never_take_all_threads(manager: LabManager, session_id: str, runner: FakeRunner) -> None:
    """One more than there are places for is sent away, and comes back when there is one."""
    with pytest.raises(LabNotFound):
        manager.inspection.device_state(session_id)
    manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    manager.inspection.collectors = Room(1)
    runner.may_collect.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(manager.inspection.device_state, session_id)
        assert runner.collecting.wait(WAIT_SECONDS)
        with pytest.raises(TooManyHeldRequests):
            manager.inspection.device_state(session_id)
        runner.may_collect.set()
        (device,) = first.result(WAIT_SECONDS)
    assert (device.name, device.outputs[0].output) == ("r1", "hello\n")
    assert len(manager.inspection.device_state(session_id)) == 1
