"""What is forgotten: ended sessions and labs after a day or when there are too many, history after its days.

`doomed()` only reads, so that a round with nothing to forget writes nothing; `forget()` takes some at a time, so that
whoever else writes waits for milliseconds. What has ended never comes back to life: nothing that was doomed has to be
looked at again. Pages that become free are used again and the file does not shrink, so a bound on every table is one on
the database.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, false, func, or_, select
from sqlalchemy.orm import Session as Transaction

from remote_lab.core.limits import HOUR_SECONDS
from remote_lab.core.models import HistoryEntry, Lab, Session
from remote_lab.states import LIVE_LAB_STATES, SessionState

KEPT_SECONDS = 24 * 3600.0
"""How long ended sessions, ended labs and the logs of failed boots are kept."""

KEPT_SESSIONS = 10_000
"""Ended sessions, the last ones. A client asks why its session ended within 30 s, when it was told to come back: there
is room for a full queue (REMOTE_LAB_MAX_WAITING) that ends at once."""

KEPT_LABS = 10_000
"""Ended labs, the last ones; estimates are made from 50."""

KEPT_LOGS = 1_000
"""Logs of failed boots, the last ones: each is a file, and boots that fail at once are several in a second."""

KEPT_ENTRIES = 100_000
"""Entries of the history: with 1000 sessions a day, more than the 90 days that are kept by default."""

CROWD_STEP = 1_000
"""So many entries more go at once, because all of them have to be counted for that."""

PRUNED_AT_ONCE = 500
"""The most rows of a kind that one transaction removes, which takes it some milliseconds."""

PRUNED_IN_A_ROUND = 20 * PRUNED_AT_ONCE
"""The reaper has other things to do; its next round goes on."""


@dataclass(frozen=True)
class Crowd:
    """Whose entries of the history go before their time: whoever has the most."""

    token: str | None
    """None: sessions that were opened without one."""
    entries: int
    """How many they have."""


@dataclass(frozen=True)
class Doomed:
    """What can be forgotten now; ids, the first of each in front."""

    labs: Sequence[str] = field(default=())
    sessions: Sequence[str] = field(default=())
    entries: Sequence[int] = field(default=())
    crowd: Crowd | None = None
    """Who made the history too long."""

    def batches(self) -> Iterator[Doomed]:
        """Yield parts of it that are small enough for one transaction."""
        for first in range(0, max(map(len, (self.labs, self.sessions, self.entries))), PRUNED_AT_ONCE):
            part = slice(first, first + PRUNED_AT_ONCE)
            yield Doomed(self.labs[part], self.sessions[part], self.entries[part])


def doomed(transaction: Transaction, now: datetime, history_days: float) -> Doomed:
    """Look for what can be forgotten; nothing that lives, and what it needs.

    Args:
        transaction: that reads.
        now: by the server's clock.
        history_days: how long the history is kept, counted from the end of a session.
    """
    before = now - timedelta(seconds=KEPT_SECONDS)
    entries, crowd = _doomed_entries(transaction, now - timedelta(days=history_days))
    return Doomed(_doomed_labs(transaction, now, before), _doomed_sessions(transaction, now, before), entries, crowd)


def forget(transaction: Transaction, part: Doomed) -> None:
    """Forget one of the batches."""
    transaction.execute(delete(Lab).where(or_(Lab.id.in_(part.labs), Lab.session_id.in_(part.sessions))))
    transaction.execute(delete(Session).where(Session.id.in_(part.sessions)))
    transaction.execute(delete(HistoryEntry).where(HistoryEntry.id.in_(part.entries)))


def _counted_labs(now: datetime) -> Select[str]:
    """The sessions whose labs count for a limit of their token (`limits.check_boots`), which nobody may make forget."""
    counted = select(Lab.session_id).join(Session, Session.id == Lab.session_id)
    return counted.where(Session.token_id.is_not(None), Lab.created_at > now - timedelta(seconds=HOUR_SECONDS))


def _doomed_sessions(transaction: Transaction, now: datetime, before: datetime) -> Sequence[str]:
    with_live_lab = select(Lab.session_id).where(Lab.state.in_(LIVE_LAB_STATES))
    is_over = Session.state == SessionState.ENDED
    ended = select(Session.id).where(is_over, Session.id.not_in(with_live_lab))
    old = transaction.scalars(ended.where(Session.ended_at < before).limit(PRUNED_IN_A_ROUND)).all()
    return old or _first(
        transaction,
        ended.where(Session.id.not_in(_counted_labs(now))).order_by(Session.ended_at, Session.ticket),
        _count(transaction, is_over) - KEPT_SESSIONS,
    )


def _doomed_labs(transaction: Transaction, now: datetime, before: datetime) -> Sequence[str]:
    is_over = Lab.state.not_in(LIVE_LAB_STATES)
    # Of its last lab a session that lives is told how it ended.
    lives = select(Session.id).where(Session.state.in_((SessionState.WAITING, SessionState.ACTIVE)))
    last = select(Lab.session_id, func.max(Lab.created_at)).where(Lab.session_id.in_(lives)).group_by(Lab.session_id)
    spared = or_(false(), *((Lab.session_id == of) & (Lab.created_at == at) for of, at in transaction.execute(last)))
    ended = select(Lab.id).where(is_over, ~spared)
    old = transaction.scalars(ended.where(Lab.ended_at < before).limit(PRUNED_IN_A_ROUND)).all()
    return old or _first(
        transaction,
        ended.where(Lab.session_id.not_in(_counted_labs(now))).order_by(Lab.ended_at),
        _count(transaction, is_over) - KEPT_LABS,
    )


def _doomed_entries(transaction: Transaction, before: datetime) -> tuple[Sequence[int], Crowd | None]:
    is_down = or_(HistoryEntry.lab_id.is_(None), HistoryEntry.lab_ended_at.is_not(None))
    over = select(HistoryEntry.id).where(HistoryEntry.ended_at.is_not(None), is_down)
    old = over.where(HistoryEntry.ended_at < before).order_by(HistoryEntry.ended_at)
    if found := transaction.scalars(old.limit(PRUNED_IN_A_ROUND)).all():
        return found, None
    # The numbers of entries are in their order and never given twice: no more entries than numbers.
    low, high = transaction.execute(select(func.min(HistoryEntry.id), func.max(HistoryEntry.id))).one()
    may_be_too_many = (high or 0) - (low or 0) >= KEPT_ENTRIES
    excess = _count(transaction, HistoryEntry.id > 0) - KEPT_ENTRIES if may_be_too_many else 0
    if excess <= 0:
        return (), None
    count = func.count()
    token, most = transaction.execute(
        select(HistoryEntry.token, count).group_by(HistoryEntry.token).order_by(count.desc()).limit(1)
    ).one()
    theirs = over.where(HistoryEntry.token.is_not_distinct_from(token))
    first = theirs.order_by(HistoryEntry.lab_id.is_not(None), HistoryEntry.id)
    return _first(transaction, first, excess + CROWD_STEP), Crowd(token, most)


def _count(transaction: Transaction, which: ColumnElement[bool]) -> int:
    return transaction.scalar(select(func.count()).where(which)) or 0


def _first(transaction: Transaction, chosen: Select[Any], count: int) -> Sequence[Any]:
    return transaction.scalars(chosen.limit(min(count, PRUNED_IN_A_ROUND))).all() if count > 0 else ()
