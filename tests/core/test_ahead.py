"""Boots ahead: what is booted for whom while they wait, what it is worth to them, and every race around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import WAIT_SECONDS, FakeClock, FakeRunner, wait_until, yaml_file

from remote_lab.callers import OPEN, TRUSTED, USE, Caller
from remote_lab.config import Config
from remote_lab.core import history, tokens, uploads
from remote_lab.core.history import Wanted
from remote_lab.core.manager import LabManager
from remote_lab.core.reaper import Reaper
from remote_lab.core.uploads import Brought
from remote_lab.errors import LabBusy, UploadNotFound
from remote_lab.netlab.allowlist import Finding

ONE, TWO, THREE = ("nodes: [r1]\n", "nodes: [r2]\n", "nodes: [r3]\n")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(state_dir=tmp_path, ahead=1)


def bring(manager: LabManager, text: str | None, caller: Caller = OPEN) -> str:
    """Open a session with a topology; returns its id."""
    if text is None:
        return manager.open_session(caller=caller).session_id
    upload = manager.brought.receive(yaml_file(text), [], caller)
    try:
        return manager.open_session(caller=caller, brought=Brought(upload)).session_id
    finally:
        manager.brought.done(upload)


def acquire(manager: LabManager, session_id: str, text: str, reuse: bool = False) -> bool:
    """Acquire; returns whether it says that the lab was used before."""
    return manager.desk.acquire(session_id, yaml_file(text), [], reuse=reuse).reused


def set_config(manager: LabManager, config: Config) -> None:
    manager.config = manager.desk.config = manager._ahead._config = config


def labs(manager: LabManager) -> list[tuple[int, str]]:
    """The places and states of all labs."""
    return [(lab["slot"], lab["state"]) for lab in manager.health().labs]


def wait_for(manager: LabManager, expected: list[tuple[int, str]]) -> None:
    wait_until(lambda: labs(manager) == expected, f"labs are {expected}")


def kinds(runner: FakeRunner) -> list[str]:
    return [kind for kind, _ in runner.calls]


@pytest.mark.parametrize("reuse", [True, False])
def test_promotion_finds_the_devices_ready(manager: LabManager, runner: FakeRunner, reuse: bool) -> None:
    """Nobody has used the lab, so it serves whoever wants a new one as well, and is not said to be reused."""
    first, second = bring(manager, ONE), bring(manager, TWO)
    wait_for(manager, [(2, "running")])
    assert acquire(manager, first, ONE) is False
    manager.end_session(first, "test")
    view = manager.inspection.lab(second)
    assert (view.running, view.ref_count, manager.session(second).slot) == (True, 0, 2)
    assert acquire(manager, second, TWO, reuse) is False
    assert (kinds(runner).count("boot"), manager.inspection.lab(second).ref_count) == (2, 1)
    if reuse:
        assert acquire(manager, second, TWO, reuse) is True
    else:
        with pytest.raises(LabBusy):
            acquire(manager, second, TWO, reuse)


def test_by_default_nothing_is_booted_ahead(make_manager: Callable[[], LabManager], config: Config) -> None:
    """There is one lab at a time; what came is kept all the same."""
    manager = make_manager()
    set_config(manager, replace(config, ahead=Config().ahead))
    bring(manager, ONE)
    bring(manager, TWO)
    assert (labs(manager), len(list((config.state_dir / "uploads").iterdir()))) == ([], 2)


def test_two_who_wait_and_one_place(manager: LabManager, runner: FakeRunner) -> None:
    """The first has it; the second as soon as the first has their turn and the lab before is down."""
    ids = [bring(manager, text) for text in (ONE, TWO, THREE)]
    acquire(manager, ids[0], ONE)
    wait_for(manager, [(1, "running"), (2, "running")])
    runner.may_stop.clear()
    manager.end_session(ids[0], "test")
    assert [manager.session(one).status for one in ids[1:]] == ["active", "waiting"]
    assert labs(manager) == [(1, "stopping"), (2, "running")]
    runner.may_stop.set()
    wait_for(manager, [(1, "running"), (2, "running")])
    manager.end_session(ids[1], "test")
    assert manager.session(ids[2]).slot == 1
    assert acquire(manager, ids[2], THREE) is False
    assert kinds(runner).count("boot") == 3


def test_who_brings_nothing_is_passed_over(manager: LabManager) -> None:
    """By the boot, not by the queue: they become active in the other place."""
    first, second, third = bring(manager, ONE), bring(manager, None), bring(manager, THREE)
    wait_for(manager, [(2, "running")])
    manager.end_session(first, "test")
    assert [manager.session(one).status for one in (second, third)] == ["active", "waiting"]
    assert manager.session(second).slot == 1


def test_who_is_far_behind_gets_no_lab(manager: LabManager) -> None:
    """It would lie there for hours."""
    for text in (None, None, None, THREE):
        bring(manager, text)
    assert labs(manager) == []


def test_promotion_in_the_middle_of_the_boot(manager: LabManager, runner: FakeRunner) -> None:
    """The acquire joins it: one boot."""
    runner.may_boot.clear()
    first, second = bring(manager, ONE), bring(manager, TWO)
    wait_for(manager, [(2, "starting")])
    manager.end_session(first, "test")
    assert (manager.session(second).status, manager.inspection.lab(second).state) == ("active", "starting")
    assert manager.desk.acquire_without_waiting(second, yaml_file(TWO), [], reuse=False) is None
    runner.may_boot.set()
    wait_until(lambda: manager.inspection.lab(second).running, "the lab is up")
    assert (kinds(runner), manager.inspection.lab(second).ref_count) == (["boot"], 1)


@pytest.mark.parametrize("boots", [True, False])
def test_other_content_replaces_what_was_booted_ahead(manager: LabManager, runner: FakeRunner, boots: bool) -> None:
    """Also in the middle of its boot."""
    first, second = bring(manager, ONE), bring(manager, TWO)
    wait_for(manager, [(2, "running")])
    if boots:
        manager.end_session(second, "test")
        wait_for(manager, [])
        runner.may_boot.clear()
        second = bring(manager, TWO)
        wait_for(manager, [(2, "starting")])
    manager.end_session(first, "test")
    assert manager.desk.acquire_without_waiting(second, yaml_file(THREE), [], reuse=True) is None
    runner.may_boot.set()
    wait_until(lambda: manager.inspection.lab(second).running, "its lab is up")
    assert len(runner.pods) == 1
    assert acquire(manager, second, THREE, reuse=True) is True


@pytest.mark.parametrize("state", ["starting", "running"])
def test_who_leaves_the_queue_takes_their_lab_along(manager: LabManager, runner: FakeRunner, state: str) -> None:
    """Whether it boots or is up; the place is the next one's."""
    if state == "starting":
        runner.may_boot.clear()
    _, second, third = (bring(manager, text) for text in (ONE, TWO, THREE))
    wait_for(manager, [(2, state)])
    wait_until(lambda: runner.calls, "its boot")
    [(_, lab_id)] = runner.calls
    manager.end_session(second, "test")
    runner.may_boot.set()
    wait_until(lambda: [lab for kind, lab in runner.calls if kind == "boot" and lab != lab_id], "the next one's boots")
    wait_for(manager, [(2, "running")])
    with manager.database.read() as transaction:
        ended = {one.session: one for one in history.entries(transaction, Wanted(), 10)}
    entry = ended[second[:8]]
    assert (entry.lab_id, entry.activated_at, entry.lab_end) == (lab_id, None, "its session ended (test)")
    assert ended[third[:8]].lab_id != lab_id


def test_a_boot_ahead_that_fails_is_tried_once(
    manager: LabManager, reaper: Reaper, runner: FakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """Its owner can read why; their acquire boots it again."""
    runner.boot_fails = True
    first, second = bring(manager, ONE), bring(manager, TWO)
    wait_until(lambda: "Last lines of its log" in caplog.text, "it has failed")
    wait_for(manager, [])
    reaper.tick()
    assert kinds(runner) == ["boot"]
    manager.end_session(first, "test")
    view = manager.inspection.lab(second)
    assert (view.state, view.log_tail) == ("failed", "netlab says hello")
    runner.boot_fails = False
    assert acquire(manager, second, TWO) is False


def test_a_boot_ahead_that_failed_is_no_answer_to_the_acquire_that_waits(
    manager: LabManager, runner: FakeRunner, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a teardown the acquire boots it again; who follows it meanwhile does not read of the first try."""
    first = bring(manager, ONE)
    acquire(manager, first, ONE)
    runner.boot_fails = True
    second = bring(manager, TWO)
    wait_until(lambda: "Last lines of its log" in caplog.text, "it has failed")
    runner.boot_fails = False
    bring(manager, THREE)
    wait_for(manager, [(1, "running"), (2, "running")])
    runner.may_stop.clear()
    manager.end_session(first, "test")
    assert (manager.inspection.lab(second).state, manager.session(second).slot) == ("stopping", 1)
    assert manager.desk.acquire_without_waiting(second, yaml_file(TWO), [], reuse=False) is None
    seen: list[str | None] = []

    def look() -> bool:
        seen.append(manager.inspection.lab(second).state)
        return seen[-1] == "running"

    step = manager.desk._step

    def look_and_step(*what: Any) -> Any:
        look()
        return step(*what)

    monkeypatch.setattr(manager.desk, "_step", look_and_step)
    runner.may_stop.set()
    wait_until(look, "it runs")
    assert {None, "running"} <= {*seen} <= {None, "stopping", "starting", "running"}


def test_a_host_that_is_short_of_memory_boots_nothing_ahead(
    manager: LabManager, reaper: Reaper, runner: FakeRunner
) -> None:
    """Until it has some."""
    runner.is_short_of_memory = True
    first, second = bring(manager, ONE), bring(manager, TWO)
    assert labs(manager) == []
    runner.is_short_of_memory = False
    reaper.tick()
    wait_for(manager, [(2, "running")])
    manager.end_session(first, "test")
    assert acquire(manager, second, TWO) is False


def test_a_lab_is_not_idle_while_its_owner_waits(
    manager: LabManager, reaper: Reaper, runner: FakeRunner, clock: FakeClock
) -> None:
    """However long that takes; its time begins with its owner's."""
    first, second = bring(manager, ONE), bring(manager, TWO)
    wait_for(manager, [(2, "running")])
    for _ in range(20):
        clock.seconds += 290
        manager.touch(first)
        manager.touch(second)
        reaper.tick()
    manager.end_session(first, "test")
    reaper.tick()
    assert labs(manager) == [(2, "running")]
    clock.seconds += manager.config.idle_seconds + 1
    manager.touch(second)
    reaper.tick()
    wait_for(manager, [])
    assert kinds(runner) == ["boot", "stop"]


def test_one_who_waits_and_goes_silent_loses_their_lab(
    manager: LabManager, reaper: Reaper, runner: FakeRunner, clock: FakeClock
) -> None:
    """A boot ahead is no sign of life."""
    runner.may_boot.clear()
    first, _ = bring(manager, ONE), bring(manager, TWO)
    clock.seconds += 601
    manager.touch(first)
    reaper.tick()
    wait_for(manager, [])
    assert manager.health().sessions == 1


def test_a_lab_that_dies_while_its_owner_waits_is_booted_by_the_acquire(
    manager: LabManager, reaper: Reaper, runner: FakeRunner
) -> None:
    """And not before."""
    first, second = bring(manager, ONE), bring(manager, TWO)
    wait_for(manager, [(2, "running")])
    runner.dead[runner.calls[0][1]] = "its pod is gone"
    reaper.tick()
    wait_for(manager, [])
    reaper.tick()
    manager.end_session(first, "test")
    assert acquire(manager, second, TWO) is False
    assert kinds(runner) == ["boot", "stop", "boot"]


def test_a_restart_keeps_what_was_booted_ahead(make_manager: Callable[[], LabManager], runner: FakeRunner) -> None:
    """Like any other lab."""
    before = make_manager()
    first, second = bring(before, ONE), bring(before, TWO)
    wait_for(before, [(2, "running")])
    after = make_manager()
    Reaper(after).recover()
    after.end_session(first, "test")
    assert acquire(after, second, TWO) is False
    assert kinds(runner) == ["boot"]


def test_a_restart_in_the_middle_leaves_it_to_the_acquire(
    make_manager: Callable[[], LabManager], runner: FakeRunner
) -> None:
    """What is half done is cleaned up, and not begun a second time."""
    before = make_manager()
    runner.may_boot.clear()
    first, second = bring(before, ONE), bring(before, TWO)
    wait_for(before, [(2, "starting")])
    before._ahead.begin = lambda *_: None  # type: ignore[method-assign]
    after = make_manager()
    Reaper(after).recover()
    wait_for(after, [])
    Reaper(after).tick()
    assert kinds(runner).count("boot") == 1
    runner.may_boot.set()
    after.end_session(first, "test")
    assert acquire(after, second, TWO) is False


def test_a_server_that_stops_begins_nothing_ahead(make_manager: Callable[[], LabManager], runner: FakeRunner) -> None:
    """Where the boot that it ends leaves a place, the next one's only try is that of the server after it."""
    before = make_manager()
    runner.may_boot.clear()
    for text in (ONE, TWO, THREE):
        bring(before, text)
    wait_until(lambda: runner.calls, "a boot ahead has begun")
    before.boots.end_all("the server is stopping", WAIT_SECONDS)
    assert kinds(runner) == ["boot"]
    runner.may_boot.set()
    after = make_manager()
    Reaper(after).recover()
    wait_for(after, [(2, "running")])
    assert kinds(runner) == ["boot", "boot"]


def test_a_restart_with_fewer_places_promotes_all_the_same(
    make_manager: Callable[[], LabManager], runner: FakeRunner, config: Config
) -> None:
    """Where the only place left has the lab of somebody further behind, that lab goes."""
    before = make_manager()
    ids = [bring(before, text) for text in (None, TWO, None, ONE)]
    wait_for(before, [(2, "running")])
    before.end_session(ids[0], "test")
    wait_for(before, [(1, "running"), (2, "running")])
    after = make_manager()
    set_config(after, replace(config, ahead=0))
    after.end_session(ids[1], "test")
    assert (after.session(ids[2]).status, after.session(ids[2]).slot) == ("active", 1)
    assert acquire(after, ids[2], THREE) is False
    wait_for(after, [(1, "running")])
    after.end_session(ids[2], "test")
    assert acquire(after, ids[3], ONE) is False


def test_a_boot_ahead_counts_for_its_token(manager: LabManager, runner: FakeRunner) -> None:
    """One that may boot no more waits for its turn."""
    with manager.database.write() as transaction:
        token = tokens.create(transaction, "ci", [USE], None, manager.database.clock.now())
    caller = manager.access.recognise(token, "127.0.0.1")
    set_config(manager, replace(manager.config, token_boots=1))
    bring(manager, None)
    second = bring(manager, TWO, caller)
    wait_for(manager, [(2, "running")])
    manager.end_session(second, "test")
    wait_for(manager, [])
    bring(manager, TWO, caller)
    assert kinds(runner) == ["boot", "stop"]


def test_what_is_not_allowed_is_not_booted_ahead_either(
    make_manager: Callable[[], LabManager], runner: FakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """Uploads that a server with sandboxes took are looked at again where there is none."""
    before = make_manager()
    set_config(before, replace(before.config, ahead=0))
    first, second = bring(before, ONE), bring(before, TWO)
    runner.refused = [Finding(line=1, column=1, what="plugin")]
    after = make_manager()
    Reaper(after).recover()
    wait_until(lambda: "its files cannot be had" in caplog.text, "it was refused")
    wait_for(after, [])
    after.end_session(first, "test")
    assert (kinds(runner), after.inspection.lab(second).state) == ([], "failed")


def test_an_upload_is_its_tokens_own(manager: LabManager) -> None:
    """By its identity nobody else has it, and nobody learns that it is there."""
    identity = manager.brought.receive(yaml_file(ONE), [], OPEN).identity
    mine = Caller("mine", None, frozenset({USE, TRUSTED}))
    with pytest.raises(UploadNotFound):
        manager.brought.check_named(identity, mine)  # it came, and no session with it
    bring(manager, ONE)
    manager.brought.check_named(identity, mine)
    with pytest.raises(UploadNotFound, match="Send the topology itself"):
        manager.brought.check_named(identity, Caller("other", 7, frozenset({USE})))


def test_the_store_is_bounded(manager: LabManager, reaper: Reaper, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody waits for goes first, the oldest of it; where all is waited for nothing more is kept."""
    monkeypatch.setattr(uploads, "KEPT_UPLOADS", 2)
    folder = manager.config.state_dir / "uploads"
    ended = bring(manager, ONE)
    manager.end_session(ended, "test")
    bring(manager, None)
    kept = [bring(manager, TWO), bring(manager, THREE)]
    reaper.tick()
    assert len(list(folder.iterdir())) == 2
    late = bring(manager, "nodes: [r4]\n")
    assert (manager.session(late).status, len(list(folder.iterdir()))) == ("waiting", 2)
    manager.end_session(kept[1], "test")
    bring(manager, "nodes: [r5]\n")
    reaper.tick()
    assert len(list(folder.iterdir())) == 2


def test_uploads_go_after_a_day(manager: LabManager, reaper: Reaper, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for those that somebody still waits with, and what a killed server left goes at once."""
    folder = manager.config.state_dir / "uploads"
    bring(manager, None)
    ended, _ = bring(manager, ONE), bring(manager, TWO)
    manager.end_session(ended, "test")
    (folder / "left by a killed server" / "lab").mkdir(parents=True)
    reaper.tick()
    assert len(list(folder.iterdir())) == 2
    monkeypatch.setattr(uploads, "KEPT_SECONDS", -1.0)
    reaper.tick()
    assert len(list(folder.iterdir())) == 1


def test_the_same_upload_is_kept_once(manager: LabManager, reaper: Reaper) -> None:
    """However often it comes."""
    for _ in range(3):
        bring(manager, ONE)
    reaper.tick()
    assert len(list((manager.config.state_dir / "uploads").iterdir())) == 1


def test_a_lab_that_was_left_warm_is_not_booted_again(
    make_manager: Callable[[], LabManager], runner: FakeRunner, config: Config
) -> None:
    """Who brings the same finds it where it is."""
    manager = make_manager()
    set_config(manager, replace(config, warm_seconds=60.0, ahead=2))
    first, second = bring(manager, None), bring(manager, ONE)
    wait_for(manager, [(2, "running")])
    manager.end_session(first, "test")
    acquire(manager, second, ONE)
    manager.desk.release(second)
    manager.end_session(second, "test")
    third, fourth = bring(manager, None), bring(manager, ONE)
    assert labs(manager) == [(2, "running")]
    manager.end_session(third, "test")
    assert (manager.session(fourth).slot, acquire(manager, fourth, ONE, reuse=True)) == (2, True)
    assert kinds(runner) == ["boot"]
