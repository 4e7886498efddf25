"""What is forgotten and what is not: a server of any age, with any traffic, is as large as one of a day."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fakes import FakeClock, FakeRunner, wait_until, yaml_file
from sqlalchemy import func, select, text

from remote_lab.callers import USE, Caller
from remote_lab.config import Config
from remote_lab.core import pruning, tokens
from remote_lab.core.db import WAL_BYTES
from remote_lab.core.manager import OWNER_REASON, LabManager
from remote_lab.core.models import HistoryEntry, Lab, Session
from remote_lab.core.reaper import Reaper
from remote_lab.errors import LabBootFailed, LimitExceeded, SessionNotFound

IN_MEMORY = Path("/dev/shm")
"""A disk would take most of the time of these tests: each session is written through to it twice."""


@pytest.fixture
def config() -> Iterator[Config]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder:
        yield Config(state_dir=Path(folder))


def pass_through(manager: LabManager, times: int, caller: Caller | None = None) -> list[str]:
    """Open and end sessions, one after the other."""
    ids = []
    for _ in range(times):
        ids.append(manager.open_session(**({} if caller is None else {"caller": caller})).session_id)
        manager.end_session(ids[-1], OWNER_REASON)
    return ids


def make_token(manager: LabManager, name: str) -> Caller:
    with manager.database.write() as transaction:
        made = tokens.create(transaction, name, [USE], None, datetime.now(UTC))
    return manager.access.recognise(made, "192.0.2.1")


def count(manager: LabManager, what: type[Session | Lab | HistoryEntry]) -> int:
    with manager.database.read() as transaction:
        return transaction.scalar(select(func.count()).select_from(what)) or 0


def knows_why(manager: LabManager, session_id: str) -> bool:
    """Whether the server still says why a session ended."""
    with pytest.raises(SessionNotFound) as refusal:
        manager.session(session_id)
    return OWNER_REASON in refusal.value.detail


def limit(monkeypatch: pytest.MonkeyPatch, **limits: int) -> None:
    for name, value in limits.items():
        monkeypatch.setattr(pruning, name, value)


def test_many_go_some_at_a_time(manager: LabManager, reaper: Reaper) -> None:
    """In one round, but in several transactions, between which others write; with nothing to forget in none."""
    long_ago = datetime.now(UTC) - timedelta(days=400)
    with manager.database.write() as transaction:
        for ticket in range(2 * pruning.PRUNED_AT_ONCE + 7):
            transaction.add(HistoryEntry(ticket=ticket, session="12345678", opened_at=long_ago, ended_at=long_ago))
    before = manager.database.changes.count()
    reaper._forget()
    assert (count(manager, HistoryEntry), manager.database.changes.count() - before) == (0, 3)
    reaper._forget()
    assert manager.database.changes.count() - before == 3


def test_sessions_that_ended_last_are_remembered(
    manager: LabManager, reaper: Reaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are, and however early they were opened: their owners may ask why they ended."""
    limit(monkeypatch, KEPT_SESSIONS=10, PRUNED_AT_ONCE=4)
    manager.config = replace(manager.config, slots=2)
    early = manager.open_session().session_id
    ids = pass_through(manager, 30)
    manager.end_session(early, OWNER_REASON)
    reaper.tick()
    assert [one for one in (*ids, early) if knows_why(manager, one)] == [*ids[-9:], early]
    assert count(manager, HistoryEntry) == 31


def test_a_flood_of_sessions_forgives_no_boots(
    manager: LabManager, reaper: Reaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Boots of a token count for an hour, though its sessions are more than are kept."""
    limit(monkeypatch, KEPT_SESSIONS=2, KEPT_LABS=0)
    manager.config = manager.desk.config = replace(manager.config, token_boots=1)
    nightly = make_token(manager, "nightly")
    first = manager.open_session(caller=nightly).session_id
    manager.desk.acquire(first, yaml_file(), [], reuse=True)
    manager.end_session(first, OWNER_REASON)
    wait_until(lambda: not manager.workspaces.present(), "the lab is down")
    pass_through(manager, 8, nightly)
    reaper.tick()
    assert count(manager, Session) == 2
    another = manager.open_session(caller=nightly).session_id
    with pytest.raises(LimitExceeded):
        manager.desk.acquire(another, yaml_file(), [], reuse=True)


def test_a_session_is_told_of_its_last_lab(
    manager: LabManager, reaper: Reaper, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many of its boots failed; of their logs the last ones stay."""
    limit(monkeypatch, KEPT_LABS=0, KEPT_LOGS=2)
    session_id = manager.open_session().session_id
    runner.boot_fails = True
    for _ in range(5):
        with pytest.raises(LabBootFailed):
            manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    reaper._sweep()
    assert len(manager.workspaces.present()) == 2
    reaper._forget()
    reaper._sweep()
    assert (count(manager, Lab), len(manager.workspaces.present())) == (1, 1)
    assert manager.inspection.lab(session_id).state == "failed"
    assert manager.inspection.boot_log(session_id).path.exists()


def test_nobody_flushes_the_history_of_others(
    manager: LabManager, reaper: Reaper, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who has the most entries loses the first of theirs, those with labs last, and the log says who."""
    limit(monkeypatch, KEPT_ENTRIES=20, CROWD_STEP=3)
    quiet, noisy = make_token(manager, "quiet"), make_token(manager, "noisy")
    pass_through(manager, 8, quiet)
    with_lab = manager.open_session(caller=noisy).session_id
    manager.desk.acquire(with_lab, yaml_file(), [], reuse=True)
    manager.end_session(with_lab, OWNER_REASON)
    wait_until(lambda: not manager.workspaces.present(), "the lab is down")
    for _ in range(3):
        pass_through(manager, 10, noisy)
        reaper._forget()
    with manager.database.read() as transaction:
        left = transaction.scalars(select(HistoryEntry).order_by(HistoryEntry.id)).all()
    assert [entry.token for entry in left].count("quiet") == 8
    assert len(left) <= 20
    assert with_lab[:8] in [entry.session for entry in left]
    assert caplog.text.count("of token noisy the first go before their time") == 1


def test_a_database_and_a_server_of_much_traffic_stay_small(
    manager: LabManager, reaper: Reaper, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After as many sessions as are kept nothing grows with them: no table, no file, no map, and files are closed."""
    limit(monkeypatch, KEPT_SESSIONS=30, KEPT_LABS=10, KEPT_ENTRIES=40, CROWD_STEP=5)

    def live_through(sessions: int) -> None:
        for number in range(sessions):
            session_id = manager.open_session().session_id
            if number % 5 == 0:
                manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
            manager.end_session(session_id, OWNER_REASON)
            wait_until(lambda: not manager.workspaces.present(), "its lab is down")
        clock.seconds += 100
        reaper.tick()

    for _ in range(4):
        live_through(30)
    on_disk, files = sizes_on_disk(manager), len(os.listdir("/proc/self/fd"))
    live_through(30)
    assert len(os.listdir("/proc/self/fd")) < files + 10
    in_memory = sizes_of(manager) | sizes_of(reaper)
    assert {where: size for where, size in in_memory.items() if size > 5} == {}
    assert sizes_on_disk(manager) | {"pages": 0} == on_disk | {"pages": 0}
    assert (on_disk["sessions"], on_disk["labs"]) == (30, 6)
    # Where rows come to lie varies; those of 30 sessions take more.
    assert sizes_on_disk(manager)["pages"] <= on_disk["pages"] + 2


def sizes_on_disk(manager: LabManager) -> dict[str, int]:
    """Rows of each table, and pages of the database."""
    with manager.database.read() as transaction:
        tables = transaction.scalars(text("SELECT name FROM sqlite_master WHERE type = 'table'")).all()
        rows = {name: int(transaction.scalar(text(f"SELECT count(*) FROM {name}")) or 0) for name in tables}
        return {**rows, "pages": int(transaction.scalar(text("PRAGMA page_count")) or 0)}


def sizes_of(root: object) -> dict[str, int]:
    """How many things are in each container that an object of ours holds, by where it is."""
    sizes: dict[str, int] = {}
    seen: set[int] = set()

    def look(thing: object, where: str) -> None:
        if id(thing) in seen:
            return
        seen.add(id(thing))
        if isinstance(thing, Mapping | Set | list | deque):
            sizes[where] = len(thing)
        elif type(thing).__module__.startswith("remote_lab."):
            names = [*getattr(thing, "__dict__", {}), *getattr(type(thing), "__slots__", ())]
            for name in names:
                look(getattr(thing, name, None), f"{where}.{name}")

    look(root, type(root).__name__)
    return sizes


def test_the_log_of_the_database_shrinks_when_a_long_reader_has_gone(make_manager: Callable[[], LabManager]) -> None:
    """A backup of a large database keeps SQLite from beginning its log anew."""
    manager = make_manager()
    wal = manager.database.path.with_name(f"{manager.database.path.name}-wal")

    def write(times: int) -> None:
        for _ in range(times):
            with manager.database.write() as transaction:
                transaction.execute(text("UPDATE host_clock SET boot_id = hex(randomblob(1000000))"))

    Reaper(manager).recover()
    with manager.database.read() as reader:
        reader.execute(text("SELECT * FROM host_clock"))
        write(10)
        assert wal.stat().st_size > 2 * WAL_BYTES
    write(3)
    assert wal.stat().st_size <= WAL_BYTES
