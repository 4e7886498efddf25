"""The time of day that goes on record, on a host whose clock may jump.

`Clock` goes on evenly whatever is done to the host's clock. The reaper notices a jump (`follow_jump`) and moves what
is on record by as much, in the same transaction in which the clock goes along. So a jump neither ends nor prolongs a
lease, and nothing that is kept for a day is forgotten at once; what users read is the host's time again.

A server that starts compares with what the one before it left on record (`take_over`): within one boot of the host it
notices a jump that came in between. Over a reboot a clock that went back is noticed by records of the future; one that
went ahead cannot be told from a host that was off.

Tokens are not moved: what they say of the calendar is meant that way.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session as Transaction

from remote_lab.core.models import HistoryEntry, HostClock, KeptUpload, Lab, LabReference, Session

log = logging.getLogger(__name__)

JUMP_SECONDS = 2.0
"""What is less is not worth moving everything for; smaller steps add up to it."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MOMENTS: tuple[tuple[type[Any], tuple[str, ...]], ...] = (
    (Session, ("created_at", "activated_at", "lease_expires_at", "ended_at")),
    (Lab, ("created_at", "running_at", "ended_at")),
    (LabReference, ("created_at",)),
    (KeptUpload, ("used_at",)),
    (HistoryEntry, ("opened_at", "activated_at", "acquired_at", "running_at", "lab_ended_at", "ended_at")),
)


def seconds_since_boot() -> float:
    """Seconds that never jump and go on while the host is suspended, as leases do (clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Clock:
    """The time of day as it was when this object was made, and the seconds since."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = seconds_since_boot) -> None:
        self._wall = wall
        self._steady = steady
        self.offset_seconds = wall() - steady()
        """Between the steady seconds and the time of day."""

    def now(self) -> datetime:
        """The moment to put on record."""
        return datetime.fromtimestamp(self._steady() + self.offset_seconds, UTC)

    def jump_seconds(self) -> float:
        """By how much the host's clock has moved against this one."""
        return self._wall() - self._steady() - self.offset_seconds

    def move(self, seconds: float) -> None:
        """Go along with the host's clock."""
        self.offset_seconds += seconds


def follow_jump(transaction: Transaction, clock: Clock, jump_seconds: float) -> None:
    """Move the records by the jump; the caller moves the clock when that is certain."""
    log.warning(
        "The host's clock jumped by %+.0f s: leases and all times on record move with it. No session ends for it; see "
        "the host's time service",
        jump_seconds,
    )
    _move_records(transaction, jump_seconds)
    _remember(transaction, clock.offset_seconds + jump_seconds)


def take_over(transaction: Transaction, clock: Clock) -> None:
    """Compare the clock with that of an earlier server and move its records if the host's clock has jumped since."""
    before = transaction.get(HostClock, 1)
    jump_seconds = 0.0
    if before is not None and before.boot_id == _boot_id():
        jump_seconds = clock.offset_seconds - before.offset_seconds
    else:
        newest = _newest(transaction)
        if newest is not None:
            jump_seconds = min(0.0, (clock.now() - newest).total_seconds())
    if abs(jump_seconds) >= JUMP_SECONDS:
        log.warning("The host's clock jumped by %+.0f s since an earlier server: its records move along", jump_seconds)
        _move_records(transaction, jump_seconds)
    _remember(transaction, clock.offset_seconds)


def _boot_id() -> str:
    return _BOOT_ID.read_text().strip()


def _remember(transaction: Transaction, offset_seconds: float) -> None:
    transaction.merge(HostClock(id=1, boot_id=_boot_id(), offset_seconds=offset_seconds))
    transaction.flush()


def _newest(transaction: Transaction) -> datetime | None:
    """The last moment on record that has passed for whoever wrote it."""
    columns = [getattr(table, name) for table, names in _MOMENTS for name in names if name != "lease_expires_at"]
    moments = (transaction.scalar(select(func.max(column))) for column in columns)
    return max((moment for moment in moments if moment is not None), default=None)


def _move_records(transaction: Transaction, seconds: float) -> None:
    by = f"{seconds:+.3f} seconds"
    for table, names in _MOMENTS:
        # SQLite writes milliseconds, and reads of the column expect microseconds.
        moved = {name: func.strftime("%Y-%m-%d %H:%M:%f", getattr(table, name), by).concat("000") for name in names}
        transaction.execute(update(table).values(moved), execution_options={"synchronize_session": False})
    transaction.expire_all()
