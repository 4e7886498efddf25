"""The queue: strict FIFO by ticket. Every function works in the transaction it is given and commits nothing.

A session waits until it is the first in the queue and a slot is free: a slot with neither an active session nor a live
lab, because the lab of the one before may still be on its way down, unless it was kept warm.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import CursorResult, delete, func, or_, select, update
from sqlalchemy.orm import Session as Transaction

from remote_lab.callers import Caller
from remote_lab.core import history
from remote_lab.core.models import Lab, LabReference, Session
from remote_lab.errors import LeaseTooLong, QueueFull, SessionNotFound, SessionWaiting
from remote_lab.states import LIVE_LAB_STATES, LabState, SessionState

LIVE = (SessionState.WAITING, SessionState.ACTIVE)


def free_slots(slots: int, taken: Collection[int]) -> list[int]:
    """The slots from 1 to `slots` that are not taken, lowest first."""
    return [slot for slot in range(1, slots + 1) if slot not in taken]


def promotions(waiting: Sequence[int], free: Sequence[int]) -> list[tuple[int, int]]:
    """Choose who gets a slot: the lowest tickets, in order; returns (ticket, slot) pairs."""
    return list(zip(sorted(waiting), free, strict=False))


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


def admit(transaction: Transaction, slots: int, max_lease_seconds: float, now: datetime) -> list[Session]:
    """Promote the first in the queue into whatever slots are free; returns the sessions promoted, in order.

    A slot is free when nobody is active in it and its lab, if any, was kept warm for whoever comes next.
    The lease of each begins: as long as its owner wished, at most `max_lease_seconds`; 0 is no limit in either.
    """
    active = select(Session.slot).where(Session.state == SessionState.ACTIVE)
    is_warm = (Lab.state == LabState.RUNNING) & (Session.state == SessionState.ENDED)
    occupied = select(Lab.slot).join(Session, Session.id == Lab.session_id)
    occupied = occupied.where(Lab.state.in_(LIVE_LAB_STATES), ~is_warm)
    taken = {slot for slot in transaction.scalars(active.union_all(occupied)) if slot is not None}
    free = free_slots(slots, taken)
    if not free:
        return []
    first = select(Session.ticket).where(Session.state == SessionState.WAITING).order_by(Session.ticket)
    promoted: list[Session] = []
    for ticket, slot in promotions(transaction.scalars(first.limit(len(free))).all(), free):
        changed = transaction.execute(
            update(Session)
            .where(Session.ticket == ticket, Session.state == SessionState.WAITING)
            .values(state=SessionState.ACTIVE, slot=slot, activated_at=now)
        )
        if cast(CursorResult[tuple[()]], changed).rowcount:
            session = transaction.get_one(Session, ticket, populate_existing=True)
            lease_seconds = max_lease_seconds if session.lease_seconds is None else session.lease_seconds
            if lease_seconds:
                session.lease_expires_at = now + timedelta(seconds=lease_seconds)
            history.activated(transaction, session)
            promoted.append(session)
    transaction.flush()
    return promoted


def find(transaction: Transaction, session_id: str) -> Session | None:
    """The session with this id, also one that has ended."""
    return transaction.scalar(select(Session).where(Session.id == session_id))


def is_open_to(session: Session, caller: Caller) -> bool:
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
    in_front = select(func.count()).where(Session.state.in_(LIVE), Session.ticket < session.ticket)
    return transaction.scalar(in_front) or 0


def live(transaction: Transaction) -> Sequence[Session]:
    """All waiting and active sessions in the order of the queue."""
    return transaction.scalars(select(Session).where(Session.state.in_(LIVE)).order_by(Session.ticket)).all()


def waiting_count(transaction: Transaction) -> int:
    """How many sessions wait for their turn."""
    return transaction.scalar(select(func.count()).where(Session.state == SessionState.WAITING)) or 0


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


def head(transaction: Transaction) -> Session | None:
    """The first of the queue, active or about to be; None when nobody is there."""
    return transaction.scalar(select(Session).where(Session.state.in_(LIVE)).order_by(Session.ticket).limit(1))


def end(transaction: Transaction, session_id: str, reason: str, now: datetime) -> Session:
    """End a session and give back its references; SessionNotFound when it has ended already."""
    session = get(transaction, session_id)
    transaction.execute(
        update(Session)
        .where(Session.id == session_id, Session.state.in_(LIVE))
        .values(state=SessionState.ENDED, ended_at=now, end_reason=reason)
    )
    transaction.execute(delete(LabReference).where(LabReference.session_id == session_id))
    transaction.refresh(session)
    history.ended(transaction, session)
    return session


def prune(transaction: Transaction, ended_before: datetime) -> None:
    """Forget sessions that ended before a moment, and their labs."""
    old = select(Session.id).where(Session.state == SessionState.ENDED, Session.ended_at < ended_before)
    with_live_lab = select(Lab.session_id).where(Lab.state.in_(LIVE_LAB_STATES))
    forgotten: Iterable[str] = transaction.scalars(old.where(Session.id.not_in(with_live_lab))).all()
    transaction.execute(delete(Lab).where(Lab.session_id.in_(forgotten)))
    transaction.execute(delete(Session).where(Session.id.in_(forgotten)))
