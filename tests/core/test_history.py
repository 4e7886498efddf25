"""Who had which lab: what is on record after each thing that can happen, and after a crash in the middle of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from fakes import FakeRunner, wait_until, yaml_file
from sqlalchemy import update

from remote_lab.callers import ADMIN, USE, Caller
from remote_lab.core import history
from remote_lab.core.history import Entry, Wanted
from remote_lab.core.manager import OWNER_REASON, LabManager
from remote_lab.core.models import HistoryEntry, Token
from remote_lab.core.reaper import Reaper
from remote_lab.core.sessions import Wish
from remote_lab.errors import LabBootFailed

ALL = Wanted()
OTHER = "nodes: [r1, r2]\n"


def on_record(manager: LabManager, wanted: Wanted = ALL, limit: int = 100) -> list[Entry]:
    """The history, the last first."""
    with manager.database.read() as transaction:
        return history.entries(transaction, wanted, limit)


def token(manager: LabManager, name: str, *rights: str) -> Caller:
    """Somebody with a token of this name."""
    with manager.database.write() as transaction:
        row = Token(name=name, sha256=name, rights=" ".join(rights), created_at=datetime.now(UTC))
        transaction.add(row)
        transaction.flush()
        return Caller(name, row.id, frozenset(rights))


def acquire(manager: LabManager, session_id: str, text: str = "nodes: [r1]\n", name: str = "demo.yml") -> None:
    """Take a lab and give it back, so that another may take its place."""
    manager.desk.acquire(session_id, yaml_file(text, name), [], reuse=True)
    manager.desk.release(session_id)


def wait_down(manager: LabManager) -> None:
    wait_until(lambda: not manager.health().labs, "the lab is down")


def test_a_session_is_on_record_from_its_beginning_to_its_end(manager: LabManager) -> None:
    """Who, for what, from which CI job, in which slot, with which lab, and when each of these began and ended."""
    ops = token(manager, "nightly", USE)
    wish = Wish("OSPF", "https://ci:pw@ci.example/job/7?private_token=s3cret#L9", "job-7")
    session_id = manager.open_session(wish, ops).session_id
    manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    [entry] = on_record(manager)
    assert (entry.token, entry.purpose, entry.ci_job_id, entry.ci_job_url) == (
        "nightly",
        "OSPF",
        "job-7",
        "https://ci.example/job/7",
    )
    assert (entry.session, entry.slot, entry.topology, entry.reused) == (session_id[:8], 1, "demo.yml", False)
    assert entry.identity == manager.inspection.lab(session_id).identity
    assert (entry.lab_ended_at, entry.ended_at) == (None, None)
    manager.end_session(session_id, OWNER_REASON, ops)
    wait_down(manager)
    [entry] = on_record(manager)
    moments = [entry.opened_at, entry.activated_at, entry.acquired_at, entry.running_at, entry.ended_at]
    assert moments == sorted(moment for moment in moments if moment is not None)
    assert entry.lab_ended_at is not None
    assert (entry.end_reason, entry.lab_end) == (OWNER_REASON, f"its session ended ({OWNER_REASON})")


def test_somebody_who_only_waited_is_on_record(manager: LabManager) -> None:
    """Without slot and lab, with the reason."""
    manager.open_session()
    waiting = manager.open_session().session_id
    manager.end_session(waiting, "silent for 601 s")
    last = on_record(manager)[0]
    assert (last.session, last.slot, last.activated_at, last.lab_id) == (waiting[:8], None, None, None)
    assert last.end_reason == "silent for 601 s"


def test_who_ended_the_session_of_somebody_else_is_named(manager: LabManager) -> None:
    """In the words that its owner is told."""
    owner, admin = token(manager, "nightly", USE), token(manager, "ops", USE, ADMIN)
    for reason, caller in ((OWNER_REASON, admin), ("too long", admin), (OWNER_REASON, owner)):
        manager.end_session(manager.open_session(Wish(), owner).session_id, reason, caller)
    ends = [entry.end_reason for entry in on_record(manager)]
    assert ends == [OWNER_REASON, "too long (token ops)", "token ops ended it"]


def test_each_lab_of_a_session_is_an_entry(manager: LabManager) -> None:
    """With why it had to go."""
    session_id = manager.open_session(Wish(purpose="two")).session_id
    acquire(manager, session_id)
    acquire(manager, session_id, OTHER, "other.yml")
    manager.desk.destroy(session_id, force=True)
    wait_down(manager)
    second, first = on_record(manager)
    assert (first.topology, first.lab_end) == ("demo.yml", "other.yml needs its slot")
    assert (second.topology, second.lab_end) == ("other.yml", "it was destroyed by its session")
    assert (first.purpose, first.session, first.slot) == (second.purpose, second.session, second.slot)
    assert first.lab_id != second.lab_id


def test_a_boot_that_failed_says_in_which_step(manager: LabManager, runner: FakeRunner) -> None:
    """And that the lab never ran; what netlab said stays out, it may be anything."""
    runner.boot_fails = True
    session_id = manager.open_session().session_id
    with pytest.raises(LabBootFailed):
        manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    [entry] = on_record(manager)
    assert (entry.boot_failed_in, entry.lab_end, entry.running_at) == ("start", "its boot failed in start", None)
    assert "the end of the log" not in str(entry)


def test_a_lab_that_died_says_so(manager: LabManager, reaper: Reaper, runner: FakeRunner) -> None:
    """Its session goes on."""
    session_id = manager.open_session().session_id
    acquire(manager, session_id)
    [entry] = on_record(manager)
    assert entry.lab_id is not None
    runner.dead[entry.lab_id] = "node r1 is gone"
    reaper.tick()
    wait_down(manager)
    [entry] = on_record(manager)
    assert (entry.lab_end, entry.ended_at) == ("died: node r1 is gone", None)


def test_a_warm_lab_is_an_entry_of_each_session_that_had_it(manager: LabManager) -> None:
    """The first had it until its end, the second took it over running."""
    manager.config = replace(manager.config, warm_seconds=600.0)
    first, second = manager.open_session().session_id, manager.open_session().session_id
    acquire(manager, first)
    manager.end_session(first, OWNER_REASON)
    acquire(manager, second)
    later, earlier = on_record(manager)
    assert later.lab_id == earlier.lab_id
    assert (earlier.lab_end, earlier.lab_ended_at) == ("it stayed up for the next session", earlier.ended_at)
    assert (later.reused, later.running_at, later.lab_end) == (True, later.acquired_at, None)


@pytest.mark.parametrize("when", ["booting", "stopping"])
def test_a_crash_leaves_no_entry_open(
    manager: LabManager, make_manager: Callable[[], LabManager], runner: FakeRunner, when: str
) -> None:
    """The next server completes what the killed one could not."""
    session_id = manager.open_session().session_id
    if when == "booting":
        runner.may_boot.clear()
        manager.desk.acquire_without_waiting(session_id, yaml_file(), [], reuse=True)
        assert runner.boot_began.wait(10)
    else:
        acquire(manager, session_id)
        runner.may_stop.clear()
        manager.end_session(session_id, OWNER_REASON)
    after = make_manager()
    Reaper(after).recover()
    runner.may_stop.set()
    wait_until(lambda: on_record(after)[0].lab_ended_at, "the entry is complete")
    [entry] = on_record(after)
    cut_off = "its boot or teardown was cut off"
    assert entry.lab_end == (cut_off if when == "booting" else f"its session ended ({OWNER_REASON})")
    assert (entry.ended_at is None) == (when == "booting")


def test_what_does_not_happen_is_not_on_record(manager: LabManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written in the transaction that fails."""

    def fail(*_arguments: object) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr(manager, "_admit", fail)
    with pytest.raises(RuntimeError):
        manager.open_session()
    assert on_record(manager) == []


def test_old_entries_go_and_those_of_a_session_that_lives_stay(manager: LabManager, reaper: Reaper) -> None:
    """After REMOTE_LAB_HISTORY_DAYS, counted from the end of the session, however long ago it was opened."""
    for _ in range(3):
        manager.end_session(manager.open_session().session_id, OWNER_REASON)
    alive = manager.open_session().session_id
    now = datetime.now(UTC)
    with manager.database.write() as transaction:
        for ticket, days in ((1, 91), (2, 89)):
            its = update(HistoryEntry).where(HistoryEntry.ticket == ticket)
            transaction.execute(its.values(ended_at=now - timedelta(days=days)))
        transaction.execute(update(HistoryEntry).values(opened_at=now - timedelta(days=100)))
    reaper.tick()
    assert [entry.ticket for entry in on_record(manager)] == [4, 3, 2]
    manager.config = replace(manager.config, history_days=0)
    reaper.tick()
    assert [entry.session for entry in on_record(manager)] == [alive[:8]]


def test_what_is_asked_for_is_found(manager: LabManager) -> None:
    """By token, CI job, topology and time; the last first, no more than wanted."""
    nightly = token(manager, "nightly", USE)
    first = manager.open_session(Wish(ci_job_id="job-1", ci_job_url="https://ci.example/1?x=y"), nightly).session_id
    acquire(manager, first)
    manager.end_session(first, OWNER_REASON, nightly)
    wait_down(manager)
    second = manager.open_session().session_id
    acquire(manager, second, OTHER, "other.yml")
    identity = on_record(manager)[0].identity or ""

    def tickets(**wanted: object) -> list[int]:
        return [entry.ticket for entry in on_record(manager, Wanted(**wanted))]  # type: ignore[arg-type]

    assert (tickets(), tickets(token="nightly"), tickets(token="none")) == ([2, 1], [1], [])
    assert tickets(ci_job="job-1") == tickets(ci_job="https://ci.example/1?x=z") == tickets(topology="demo.yml") == [1]
    assert tickets(topology="other.yml") == tickets(topology=identity[:8].upper()) == [2]
    ended = on_record(manager)[1].ended_at
    assert ended is not None
    assert tickets(since=ended) == [2, 1]
    assert tickets(since=ended + timedelta(seconds=1)) == [2], "a session that goes on is one of today"
    assert [entry.ticket for entry in on_record(manager, limit=1)] == [2]


def test_no_secret_is_in_it(manager: LabManager) -> None:
    """No whole session id, which is a key where the server runs open; no token; nothing of a URL but its page."""
    caller = token(manager, "nightly", USE)
    wish = Wish("OSPF", "https://user:hunter2@ci.example/job/7?private_token=s3cret#t0ken")
    session_id = manager.open_session(wish, caller).session_id
    acquire(manager, session_id)
    manager.end_session(session_id, OWNER_REASON, caller)
    said = str(on_record(manager))
    assert "https://ci.example/job/7" in said
    assert [word for word in (session_id, "hunter2", "s3cret", "t0ken", "user") if word in said] == []
