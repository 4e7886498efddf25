"""Who had which lab when, and how it ended: written beside what it records, in the same transaction.

An entry is a session without a lab, or one lab that a session had, and is completed as things happen. Each function
but `entries` is called by the one that changes the queue (`sessions.py`), a lab (`labs.py`) or begins its end
(`boots.py`), so nothing happens unrecorded and nothing is recorded that did not happen. Decisions are not made here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Table, bindparam, or_, select, update
from sqlalchemy.orm import Session as Transaction

from remote_lab.core.models import HistoryEntry, Lab, Session, Token
from remote_lab.states import LabState
from remote_lab.urls import without_secrets

# Built once, see `sessions.py`; entries that a transaction has loaded are read again where they are used.
_table = cast(Table, HistoryEntry.__table__)
_OF_TICKET = update(_table).where(_table.c.ticket == bindparam("of_ticket"))
_ACTIVATED = _OF_TICKET.values(slot=bindparam("in_slot"), activated_at=bindparam("at"))
_ENDED = _OF_TICKET.values(ended_at=bindparam("at"), end_reason=bindparam("reason"))
_OF_LAB = update(_table).where(_table.c.lab_id == bindparam("of_lab"))
_OF_LIVE_LAB = _OF_LAB.where(_table.c.lab_ended_at.is_(None))
_STOPPING = _OF_LAB.where(_table.c.lab_end.is_(None)).values(lab_end=bindparam("why"))
_UP = _OF_LIVE_LAB.values(running_at=bindparam("at"))
_FAILED = _OF_LIVE_LAB.where(_table.c.lab_end.is_(None)).values(lab_end=bindparam("why"))
_DOWN = _OF_LIVE_LAB.values(lab_ended_at=bindparam("at"), boot_failed_in=bindparam("step"))
_HANDED_ON = _OF_LIVE_LAB.where(_table.c.id != bindparam("of_entry")).values(
    lab_ended_at=_table.c.ended_at, lab_end="it stayed up for the next session"
)
_LAST = (
    select(HistoryEntry)
    .where(HistoryEntry.ticket == bindparam("ticket"))
    .order_by(HistoryEntry.id.desc())
    .limit(1)
    .execution_options(populate_existing=True)
)

SHOWN_OF_ID = 8
SHORTEST_IDENTITY = 8
_OF_SESSION = ("ticket", "session", "token", "purpose", "ci_job_id", "ci_job_url", "opened_at", "activated_at", "slot")


def opened(transaction: Transaction, session: Session) -> None:
    """A session has entered the queue."""
    token = None if session.token_id is None else transaction.get(Token, session.token_id)
    transaction.add(
        HistoryEntry(
            ticket=session.ticket,
            session=session.id[:SHOWN_OF_ID],
            token=None if token is None else token.name,
            purpose=session.purpose,
            ci_job_id=session.ci_job_id,
            ci_job_url=session.ci_job_url and without_secrets(session.ci_job_url),
            opened_at=session.created_at,
        )
    )
    transaction.flush()


def activated(transaction: Transaction, session: Session) -> None:
    """A session has got its slot."""
    known = {"of_ticket": session.ticket, "in_slot": session.slot, "at": session.activated_at}
    transaction.execute(_ACTIVATED, known)


def acquired(transaction: Transaction, session: Session, lab: Lab, now: datetime) -> None:
    """A session has taken a reference to a lab; only the first that it has to this one is an entry."""
    entry = transaction.scalar(_LAST, {"ticket": session.ticket})
    if entry is None or entry.lab_id == lab.id:
        return
    if entry.lab_id is not None:
        entry = HistoryEntry(**{name: getattr(entry, name) for name in _OF_SESSION})
        transaction.add(entry)
    is_up = lab.state == LabState.RUNNING
    entry.lab_id, entry.topology, entry.identity = lab.id, lab.topology, lab.identity
    entry.reused, entry.acquired_at, entry.running_at = is_up, now, now if is_up else None
    transaction.flush()
    transaction.execute(_HANDED_ON, {"of_lab": lab.id, "of_entry": entry.id})


def stopping(transaction: Transaction, lab: Lab, reason: str) -> None:
    """A lab is about to be taken down; the first reason is the one that counts."""
    transaction.execute(_STOPPING, {"of_lab": lab.id, "why": lab.failure or reason})


def moved(transaction: Transaction, lab_id: str, after: LabState, values: Mapping[str, Any]) -> None:
    """A lab has changed its state, and these columns with it."""
    match after:
        case LabState.RUNNING:
            transaction.execute(_UP, {"of_lab": lab_id, "at": values.get("running_at")})
        case LabState.STOPPED | LabState.FAILED:
            phase = values.get("phase")
            why = f"its boot failed in {phase}" if phase else values.get("failure")
            if why is not None:
                transaction.execute(_FAILED, {"of_lab": lab_id, "why": why})
            transaction.execute(_DOWN, {"of_lab": lab_id, "at": values.get("ended_at"), "step": phase})


def ended(transaction: Transaction, ticket: int, now: datetime, reason: str) -> None:
    """A session has ended."""
    transaction.execute(_ENDED, {"of_ticket": ticket, "at": now, "reason": reason})


@dataclass(frozen=True)
class Entry:
    """One lab that one session had, or a session without one; the fields are those of `HistoryEntry`."""

    ticket: int
    session: str
    token: str | None
    purpose: str | None
    ci_job_id: str | None
    ci_job_url: str | None
    opened_at: datetime
    activated_at: datetime | None
    slot: int | None
    lab_id: str | None
    topology: str | None
    identity: str | None
    reused: bool | None
    acquired_at: datetime | None
    running_at: datetime | None
    lab_ended_at: datetime | None
    lab_end: str | None
    boot_failed_in: str | None
    ended_at: datetime | None
    end_reason: str | None


@dataclass(frozen=True)
class Wanted:
    """What to look for; None: whatever it is."""

    since: datetime | None = None
    """Entries of sessions that had not ended at this moment."""
    token: str | None = None
    ci_job: str | None = None
    """The id or the URL of a CI job."""
    topology: str | None = None
    """The name of a topology, or 8 or more characters of the beginning of an identity."""


def entries(transaction: Transaction, wanted: Wanted, limit: int) -> list[Entry]:
    """What is on record, the last first, at most so many."""
    chosen = select(HistoryEntry).order_by(HistoryEntry.id.desc()).limit(limit)
    if wanted.since is not None:
        chosen = chosen.where(or_(HistoryEntry.ended_at.is_(None), HistoryEntry.ended_at >= wanted.since))
    if wanted.token is not None:
        chosen = chosen.where(HistoryEntry.token == wanted.token)
    if wanted.ci_job is not None:
        page = without_secrets(wanted.ci_job)
        chosen = chosen.where(or_(HistoryEntry.ci_job_id == wanted.ci_job, HistoryEntry.ci_job_url == page))
    if wanted.topology is not None:
        named = HistoryEntry.topology == wanted.topology
        if len(wanted.topology) >= SHORTEST_IDENTITY:
            named = or_(named, HistoryEntry.identity.startswith(wanted.topology.lower(), autoescape=True))
        chosen = chosen.where(named)
    names = [item.name for item in fields(Entry)]
    return [Entry(**{name: getattr(one, name) for name in names}) for one in transaction.scalars(chosen)]
