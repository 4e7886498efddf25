"""What operators look at: the queue and the labs on record, as plain values.

Reads only, each in the transaction it is given; nothing here changes anything, asks netlab, or knows how it is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session as Transaction

from remote_lab.callers import Caller
from remote_lab.core import labs, sessions
from remote_lab.core.board import Entry
from remote_lab.core.models import Lab, LabReference, Session, Token
from remote_lab.core.views import QueuePlace
from remote_lab.states import LIVE_LAB_STATES, SessionState

PLACES_SHOWN = 200


@dataclass(frozen=True)
class LabRecord:
    """A lab as it is on record."""

    lab_id: str
    session_id: str
    slot: int
    topology: str
    identity: str
    """SHA-256 of what was uploaded."""
    state: str
    phase: str | None
    """The step in which its boot failed."""
    failure: str | None
    ref_count: int
    created_at: datetime
    running_at: datetime | None
    ended_at: datetime | None
    devices: list[dict[str, Any]]
    """`[{name, raw}]` in netlab's order, once it runs."""

    @property
    def is_live(self) -> bool:
        """Whether it holds its slot."""
        return self.state in LIVE_LAB_STATES


@dataclass(frozen=True)
class SessionRecord:
    """A session as it is on record, with the lab that it has or had last."""

    session_id: str
    state: str
    position: int | None
    """Everybody in front of it, active ones included; None when it has ended."""
    slot: int | None
    purpose: str | None
    ci_job_url: str | None
    ci_job_id: str | None
    token: str | None
    """The name of the token that it belongs to; None when it was opened while the server ran open."""
    created_at: datetime
    activated_at: datetime | None
    lease_expires_at: datetime | None
    ended_at: datetime | None
    end_reason: str | None
    lab: LabRecord | None


def queue(transaction: Transaction) -> list[SessionRecord]:
    """All waiting and active sessions in the order of the queue."""
    live = {lab.session_id: lab for lab in live_labs(transaction)}
    found = enumerate(sessions.live(transaction))
    return [_session(one, position, live.get(one.id), _owner(transaction, one)) for position, one in found]


def places(live: Iterable[Entry], name: Callable[[int | None], str | None], caller: Caller) -> list[QueuePlace]:
    """The queue as everybody may see it: its first `PLACES_SHOWN` places, and those of the caller behind them.

    `live` are its sessions in order, `name` tells what a token is called.
    """
    return [
        QueuePlace(position, entry.state, name(entry.token_id), entry.purpose, entry.token_id == caller.token_id)
        for position, entry in enumerate(live)
        if position < PLACES_SHOWN or entry.token_id == caller.token_id
    ]


def ended_sessions(transaction: Transaction, limit: int) -> list[SessionRecord]:
    """The sessions that ended last, the last one first, as far as they are kept."""
    ended = select(Session).where(Session.state == SessionState.ENDED).order_by(Session.ended_at.desc()).limit(limit)
    return [_complete(transaction, session) for session in transaction.scalars(ended)]


def sessions_like(transaction: Transaction, beginning: str, limit: int = 10) -> list[SessionRecord]:
    """Sessions whose id begins like this, also ended ones, in the order of the queue."""
    like = select(Session).where(Session.id.startswith(beginning, autoescape=True)).order_by(Session.ticket)
    return [_complete(transaction, session) for session in transaction.scalars(like.limit(limit))]


def live_labs(transaction: Transaction) -> list[LabRecord]:
    """The labs that hold a slot, in the order of their slots."""
    return _labs(transaction, labs.live(transaction))


def last_labs(transaction: Transaction, limit: int) -> list[LabRecord]:
    """The labs that were booted last, the last one first, whatever became of them."""
    return _labs(transaction, transaction.scalars(select(Lab).order_by(Lab.created_at.desc()).limit(limit)).all())


def lab(transaction: Transaction, lab_id: str) -> LabRecord | None:
    """A lab by its id."""
    found = transaction.get(Lab, lab_id, populate_existing=True)
    return None if found is None else _labs(transaction, [found])[0]


def _complete(transaction: Transaction, session: Session) -> SessionRecord:
    position = None if session.state == SessionState.ENDED else sessions.position(transaction, session)
    last = select(Lab).where(Lab.session_id == session.id).order_by(Lab.created_at.desc()).limit(1)
    had = _labs(transaction, transaction.scalars(last))
    return _session(session, position, had[0] if had else None, _owner(transaction, session))


def _owner(transaction: Transaction, session: Session) -> str | None:
    return None if session.token_id is None else transaction.get_one(Token, session.token_id).name


def _session(session: Session, position: int | None, lab: LabRecord | None, token: str | None) -> SessionRecord:
    return SessionRecord(
        session_id=session.id,
        state=session.state,
        position=position,
        slot=session.slot,
        purpose=session.purpose,
        ci_job_url=session.ci_job_url,
        ci_job_id=session.ci_job_id,
        token=token,
        created_at=session.created_at,
        activated_at=session.activated_at,
        lease_expires_at=session.lease_expires_at,
        ended_at=session.ended_at,
        end_reason=session.end_reason,
        lab=lab,
    )


def _labs(transaction: Transaction, found: Iterable[Lab]) -> list[LabRecord]:
    chosen: Sequence[Lab] = list(found)
    ids = [lab.id for lab in chosen]
    counted = (
        select(LabReference.lab_id, func.count()).where(LabReference.lab_id.in_(ids)).group_by(LabReference.lab_id)
    )
    ref_counts = dict(transaction.execute(counted).all())
    return [
        LabRecord(
            lab_id=lab.id,
            session_id=lab.session_id,
            slot=lab.slot,
            topology=lab.topology,
            identity=lab.identity,
            state=lab.state,
            phase=lab.phase,
            failure=lab.failure,
            ref_count=ref_counts.get(lab.id, 0),
            created_at=lab.created_at,
            running_at=lab.running_at,
            ended_at=lab.ended_at,
            devices=lab.devices or [],
        )
        for lab in chosen
    ]
