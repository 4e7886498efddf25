"""A host whose clock jumps: nobody's lease ends or grows by it, and nothing on record is forgotten for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from fakes import FakeClock, FakeRunner, wait_until, yaml_file
from sqlalchemy import text

from remote_lab.core.clock import Clock
from remote_lab.core.manager import LabManager
from remote_lab.core.reaper import Reaper
from remote_lab.core.sessions import Wish
from remote_lab.errors import LabBootFailed, SessionNotFound

DAY = 86400.0
NOON = datetime(2026, 5, 27, 12, tzinfo=UTC)


@dataclass
class HostTime:
    """What a host's clocks say."""

    wall: float = NOON.timestamp()
    steady: float = 5000.0

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds

    def clock(self) -> Clock:
        """The clock that a server makes at its start."""
        return Clock(lambda: self.wall, lambda: self.steady)


@pytest.fixture
def host() -> HostTime:
    return HostTime()


@pytest.fixture
def begin(make_manager: Callable[[], LabManager], host: HostTime) -> Callable[[], tuple[LabManager, Reaper]]:
    """Start a server on the same state as the one before."""

    def start() -> tuple[LabManager, Reaper]:
        manager = make_manager()
        manager.database.clock = host.clock()
        reaper = Reaper(manager)
        reaper.recover()
        return manager, reaper

    return start


Begin = Callable[[], tuple[LabManager, Reaper]]


def is_gone(manager: LabManager, session_id: str) -> bool:
    try:
        manager.session(session_id)
    except SessionNotFound:
        return True
    return False


@pytest.mark.parametrize("jump", [DAY, -DAY, 3.0, -3.0])
@pytest.mark.parametrize("restarts", [False, True], ids=["while it runs", "while it is down"])
def test_a_lease_lasts_as_long_as_it_was_to(begin: Begin, host: HostTime, jump: float, restarts: bool) -> None:
    """Half an hour before the jump, half an hour after it; what users are told is the host's time again."""
    manager, reaper = begin()
    session_id = manager.open_session(Wish(lease_seconds=3600)).session_id
    host.passes(1800)
    host.wall += jump
    if restarts:
        manager, reaper = begin()
    reaper.tick()
    view = manager.session(session_id)
    assert view.lease_expires_at is not None
    ends_at = datetime.fromtimestamp(host.wall + 1800, UTC)
    assert abs(view.lease_expires_at - ends_at) < timedelta(seconds=0.01)
    host.passes(1799)
    reaper.tick()
    assert not is_gone(manager, session_id)
    host.passes(2)
    reaper.tick()
    assert is_gone(manager, session_id)


def test_jumps_there_and_back_leave_everything_as_it_was(begin: Begin, host: HostTime) -> None:
    """As when a time service was wrong for a while."""
    manager, reaper = begin()
    session_id = manager.open_session(Wish(lease_seconds=3600)).session_id
    before = manager.session(session_id)
    for jump in (DAY, -DAY, -DAY, DAY):
        host.wall += jump
        reaper.tick()
    assert manager.session(session_id) == before


def test_small_steps_add_up(begin: Begin, host: HostTime) -> None:
    """None of them is worth anything, ten are followed."""
    manager, reaper = begin()
    session_id = manager.open_session(Wish(lease_seconds=3600)).session_id
    for _ in range(10):
        host.wall -= 1.0
        reaper.tick()
    ends = manager.session(session_id).lease_expires_at
    assert ends is not None
    assert ends == datetime.fromtimestamp(host.wall + 3600, UTC)


@pytest.mark.parametrize("restarts", [False, True], ids=["while it runs", "while it is down"])
def test_nothing_is_forgotten_by_a_jump_ahead(begin: Begin, host: HostTime, runner: FakeRunner, restarts: bool) -> None:
    """Why a session ended, and the log of a failed boot, are kept for a day of real time."""
    manager, reaper = begin()
    session_id = manager.open_session().session_id
    runner.boot_fails = True
    with pytest.raises(LabBootFailed):
        manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    manager.end_session(session_id, "test")
    wait_until(lambda: not manager.boots.find(session_id), "it is down")
    host.wall += 2 * DAY
    if restarts:
        manager, reaper = begin()
    reaper.tick()
    assert len(manager.workspaces.present()) == 1
    with pytest.raises(SessionNotFound, match="ended at 2026-05-29 12:00:00 UTC: test"):
        manager.session(session_id)
    host.passes(DAY + 1)
    reaper.tick()
    assert manager.workspaces.present() == []
    with pytest.raises(SessionNotFound, match="No session"):
        manager.session(session_id)


def test_nothing_is_kept_for_longer_by_a_jump_back(begin: Begin, host: HostTime) -> None:
    """A day of real time, also then."""
    manager, reaper = begin()
    session_id = manager.open_session().session_id
    manager.end_session(session_id, "test")
    host.wall -= 30 * DAY
    reaper.tick()
    host.passes(DAY + 1)
    reaper.tick()
    with pytest.raises(SessionNotFound, match="No session"):
        manager.session(session_id)


def test_what_is_estimated_does_not_jump(begin: Begin, host: HostTime) -> None:
    """Sessions of a quarter of an hour, in one of which the clock jumped by a day."""
    manager, reaper = begin()
    for jump in (DAY, 0.0):
        session_id = manager.open_session().session_id
        host.passes(450)
        host.wall += jump
        reaper.tick()
        host.passes(450)
        manager.end_session(session_id, "test")
    manager.open_session()
    assert manager.open_session().eta_seconds == pytest.approx(900, abs=1)


def test_the_log_says_what_an_operator_looks_for(
    begin: Begin, host: HostTime, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning for each jump, with its size, and none without."""
    manager, reaper = begin()
    manager.open_session()
    host.passes(500)
    reaper.tick()
    assert "clock" not in caplog.text
    host.wall -= DAY
    reaper.tick()
    reaper.tick()
    assert caplog.text.count("The host's clock jumped by -86400 s") == 1


def test_silence_is_measured_without_the_clock(begin: Begin, host: HostTime, clock: FakeClock) -> None:
    """A jump makes nobody silent."""
    manager, reaper = begin()
    ids = [manager.open_session().session_id for _ in range(2)]
    for jump in (DAY, -2 * DAY):
        host.wall += jump
        reaper.tick()
    assert [manager.session(one).status for one in ids] == ["active", "waiting"]


def test_a_reboot_with_a_clock_that_went_back(begin: Begin, host: HostTime) -> None:
    """Its battery is empty: the records are of the future, and that tells by how much; the lease is what was left."""
    manager, _ = begin()
    session_id = manager.open_session(Wish(lease_seconds=3600)).session_id
    with manager.database.write() as transaction:
        transaction.execute(text("UPDATE host_clock SET boot_id = 'of the boot before'"))
    host.steady = 10.0
    host.wall -= 300 * DAY
    manager, _ = begin()
    ends_at = manager.session(session_id).lease_expires_at
    assert ends_at is not None
    assert abs(ends_at - datetime.fromtimestamp(host.wall + 3600, UTC)) < timedelta(seconds=0.01)


def test_a_reboot_takes_the_time_that_it_takes(begin: Begin, host: HostTime) -> None:
    """The lease goes on meanwhile, by the time of day: nothing else tells how long the host was off."""
    manager, _ = begin()
    ids = [manager.open_session(Wish(lease_seconds=seconds)).session_id for seconds in (600, 3600)]
    with manager.database.write() as transaction:
        transaction.execute(text("UPDATE host_clock SET boot_id = 'of the boot before'"))
    host.steady = 10.0
    host.wall += 900
    manager, _ = begin()
    assert [is_gone(manager, one) for one in ids] == [True, False]
