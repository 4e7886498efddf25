"""The queue: strict FIFO by ticket. Every function works in the transaction it is given and commits nothing.

A session waits until it is the first in the queue and fewer than `slots` are active. It never waits for a teardown: who
acquires in a place whose last lab is still on its way down waits for that.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import cast

from sqlalchemy import Table, bindparam, delete, func, or_, select, update
from sqlalchemy.orm import Session as Transaction

from remote_lab.callers import Caller
from remote_lab.core import history
from remote_lab.core.board import Entry
from remote_lab.core.models import KeptUpload, Lab, LabReference, Session
from remote_lab.errors import LeaseTooLong, QueueFull, SessionNotFound, SessionWaiting
from remote_lab.states import LIVE_LAB_STATES, LabState, SessionState

LIVE = (SessionState.WAITING, SessionState.ACTIVE)

# What each session needs on its way is built once: to build a statement takes longer than to execute it.
_BY_ID = select(Session).where(Session.id == bindparam("session_id"))
_WAITING = select(func.count()).where(Session.state == SessionState.WAITING)
_IN_FRONT = select(func.count()).where(Session.state.in_(LIVE), Session.ticket < bindparam("ticket"))
_TAKEN_SLOTS = select(Session.slot).where(Session.state == SessionState.ACTIVE)
_NEXT = (
    select(Session)
    .where(Session.state == SessionState.WAITING)
    .order_by(Session.ticket)
    .limit(bindparam("count"))
    .execution_options(populate_existing=True)
)
_OCCUPANTS = (
    select(Lab.slot, Lab.session_id, Lab.state, Session.state, Lab.identity)
    .join(Session, Session.id == Lab.session_id)
    .where(Lab.state.in_(LIVE_LAB_STATES))
)
_END = (
    update(Session)
    .where(Session.ticket == bindparam("of_ticket"), Session.state.in_(LIVE))
    .values(state=SessionState.ENDED, ended_at=bindparam("at"), end_reason=bindparam("reason"))
)
_references = cast(Table, LabReference.__table__)
_GIVE_BACK = delete(_references).where(_references.c.session_id == bindparam("of_session"))


class Fit(IntEnum):
    """How well a place that nobody is active in suits a session, the best first."""

    OWN = 0
    """Its lab was booted there while it waited."""
    SAME = 1
    """The lab it wants was left warm there."""
    FREE = 2
    """There is no lab, or one that was left warm."""
    STOPPING = 3
    """The last lab there is on its way down."""
    RESERVED = 4
    """A lab was booted there for somebody who waits; taken only where a restart left no other place."""


@dataclass(frozen=True)
class Occupant:
    """The live lab of a place that nobody is active in."""

    session_id: str
    is_stopping: bool
    is_warm: bool
    identity: str


def choose_place(places: Iterable[int], occupants: Mapping[int, Occupant], session_id: str, wanted: str | None) -> int:
    """Choose where a session becomes active: the best fit, of those the lowest number.

    `places` are the ones without an active session, at least one; `wanted` is the identity of the lab that the session
    said it wants. Places beyond these count as well where its own lab is.
    """

    def fit(place: int) -> Fit:
        occupant = occupants.get(place)
        if occupant is None:
            return Fit.FREE
        if occupant.is_stopping:
            return Fit.STOPPING
        if occupant.session_id == session_id:
            return Fit.OWN
        if not occupant.is_warm:
            return Fit.RESERVED
        return Fit.SAME if occupant.identity == wanted else Fit.FREE

    own = (place for place, occupant in occupants.items() if occupant.session_id == session_id)
    return min({*places, *own}, key=lambda place: (fit(place), place))


@dataclass(frozen=True)
class Wish:
    """What somebody says who enters the queue."""

    purpose: str | None = None
    ci_job_url: str | None = None
    ci_job_id: str | None = None
    lease_seconds: float | None = None
    """How long the session may be active; None: as long as the server allows; 0: without limit."""


def check_lease(lease_seconds: float, max_seconds: float) -> None:
    """Raise LeaseTooLong unless the limit allows it; 0 is no limit in either of them."""
    if max_seconds and (lease_seconds > max_seconds or not lease_seconds):
        raise LeaseTooLong(lease_seconds, max_seconds)


def enqueue(
    transaction: Transaction, wish: Wish, max_waiting: int, now: datetime, token_id: int | None = None
) -> Session:
    """Put a new session of a token at the end of the queue; QueueFull when `max_waiting` are waiting already."""
    if waiting_count(transaction) >= max_waiting:
        raise QueueFull(max_waiting)
    session = Session(
        id=str(uuid.uuid4()),
        state=SessionState.WAITING,
        purpose=wish.purpose,
        ci_job_url=wish.ci_job_url,
        ci_job_id=wish.ci_job_id,
        token_id=token_id,
        lease_seconds=wish.lease_seconds,
        created_at=now,
    )
    transaction.add(session)
    transaction.flush()
    history.opened(transaction, session)
    return session


def admit(
    transaction: Transaction, slots: int, max_lease_seconds: float, now: datetime, ahead: int = 0
) -> list[Session]:
    """Promote the first in the queue until `slots` sessions are active; returns the sessions promoted, in order.

    Each gets one of `slots + ahead` places, see `choose_place`. The lease of each begins: as long as its owner wished,
    at most `max_lease_seconds`; 0 is no limit in either.
    """
    taken = set(transaction.scalars(_TAKEN_SLOTS))
    if len(taken) >= slots:
        return []
    waiting = transaction.scalars(_NEXT, {"count": slots - len(taken)}).all()
    if not waiting:
        return []
    occupants = {place: found for place, found in _occupants(transaction).items() if place not in taken}
    for session in waiting:
        free = [place for place in range(1, slots + ahead + 1) if place not in taken]
        place = choose_place(free, occupants, session.id, _wanted(transaction, session))
        occupants.pop(place, None)
        taken.add(place)
        session.state, session.slot, session.activated_at = SessionState.ACTIVE, place, now
        lease_seconds = max_lease_seconds if session.lease_seconds is None else session.lease_seconds
        if lease_seconds:
            session.lease_expires_at = now + timedelta(seconds=lease_seconds)
        transaction.flush()
        history.activated(transaction, session)
    return list(waiting)


def _wanted(transaction: Transaction, session: Session) -> str | None:
    """The identity of the lab that a session came with."""
    if session.upload_id is None:
        return None
    return transaction.get_one(KeptUpload, session.upload_id).identity


def _occupants(transaction: Transaction) -> dict[int, Occupant]:
    """The live labs, by their places."""
    return {
        place: Occupant(
            owner, state == LabState.STOPPING, state == LabState.RUNNING and of == SessionState.ENDED, identity
        )
        for place, owner, state, of, identity in transaction.execute(_OCCUPANTS)
    }


def find(transaction: Transaction, session_id: str) -> Session | None:
    """The session with this id, also one that has ended."""
    return transaction.scalar(_BY_ID, {"session_id": session_id})


def is_open_to(session: Session | Entry, caller: Caller) -> bool:
    """Whether somebody may know a session's id, use it and end it: whose token opened it, and admins."""
    return caller.is_admin or (caller.token_id is not None and session.token_id == caller.token_id)


def get(transaction: Transaction, session_id: str) -> Session:
    """The waiting or active session with this id; SessionNotFound with the reason when it has ended."""
    session = find(transaction, session_id)
    if session is None:
        raise SessionNotFound(session_id)
    if session.state == SessionState.ENDED:
        raise SessionNotFound(session_id, session.ended_at, session.end_reason)
    return session


def get_active(transaction: Transaction, session_id: str) -> Session:
    """The active session with this id; SessionNotFound, or SessionWaiting while it is in the queue."""
    session = get(transaction, session_id)
    if session.state != SessionState.ACTIVE:
        raise SessionWaiting(session_id)
    return session


def position(transaction: Transaction, session: Session) -> int:
    """How many waiting and active sessions are in front of this one, from 0."""
    return transaction.scalar(_IN_FRONT, {"ticket": session.ticket}) or 0


def live(transaction: Transaction) -> Sequence[Session]:
    """All waiting and active sessions in the order of the queue."""
    return transaction.scalars(select(Session).where(Session.state.in_(LIVE)).order_by(Session.ticket)).all()


def waiting_count(transaction: Transaction) -> int:
    """How many sessions wait for their turn."""
    return transaction.scalar(_WAITING) or 0


def of_ci_job(transaction: Transaction, ci_job: str) -> Sequence[Session]:
    """The live sessions of a CI job, named by its id or its URL: the waiting ones first, so that none is promoted."""
    its = select(Session).where(Session.state.in_(LIVE), or_(Session.ci_job_id == ci_job, Session.ci_job_url == ci_job))
    return transaction.scalars(its.order_by(Session.state == SessionState.ACTIVE, Session.ticket)).all()


def extend(
    transaction: Transaction, session_id: str, lease_seconds: float, max_seconds: float, now: datetime
) -> Session:
    """Let an active session go on for so long from now, within `max_seconds` since it became active (0: no limit).

    Raises LeaseTooLong with what is possible, SessionNotFound, SessionWaiting.
    """
    session = get_active(transaction, session_id)
    if max_seconds and session.activated_at is not None:
        left = (session.activated_at + timedelta(seconds=max_seconds) - now).total_seconds()
        check_lease(lease_seconds, max(left, 0.001))
    session.lease_expires_at = now + timedelta(seconds=lease_seconds) if lease_seconds else None
    transaction.flush()
    return session


def active(transaction: Transaction) -> Sequence[Session]:
    """All active sessions in the order of their slots."""
    return transaction.scalars(select(Session).where(Session.state == SessionState.ACTIVE).order_by(Session.slot)).all()


def end(transaction: Transaction, session: Session, reason: str, now: datetime) -> None:
    """End a live session of this transaction and give back its references."""
    transaction.execute(_END, {"of_ticket": session.ticket, "at": now, "reason": reason})
    transaction.execute(_GIVE_BACK, {"of_session": session.id})
    history.ended(transaction, session.ticket, now, reason)
