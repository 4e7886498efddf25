"""A lab in each slot: the acquire table, references, state changes. Functions work in the transaction they are given.

State changes are conditional updates: they say by their result whether the lab was still in the state they left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, cast

from sqlalchemy import CursorResult, Table, bindparam, delete, func, insert, select, update
from sqlalchemy.orm import Session as Transaction

from remote_lab.core import history
from remote_lab.core.models import Lab, LabReference, Session
from remote_lab.states import LAB_TRANSITIONS, LIVE_LAB_STATES, LabState, SessionState

# Built once, see `sessions.py`. Changes are told to tables, not to objects: what is loaded is read again, see `move`.
_labs, _references = cast(Table, Lab.__table__), cast(Table, LabReference.__table__)
_IN_SLOT = select(Lab).where(Lab.slot == bindparam("slot"), Lab.state.in_(LIVE_LAB_STATES))
_OF_WAITING = select(Lab).where(Lab.session_id == bindparam("session_id"), Lab.state.in_(LIVE_LAB_STATES))
_REFERENCES = select(func.count()).where(LabReference.lab_id == bindparam("lab_id"))
_NAMED = (
    select(LabReference.id)
    .where(
        LabReference.lab_id == bindparam("lab_id"),
        LabReference.session_id == bindparam("session_id"),
        LabReference.acquire_id == bindparam("acquire_id"),
    )
    .limit(1)
)
_REFER = insert(_references)
_OLDEST = select(func.min(LabReference.id)).where(
    LabReference.lab_id == bindparam("of_lab"), LabReference.session_id == bindparam("of_session")
)
_RELEASE = delete(_references).where(_references.c.id == _OLDEST.scalar_subquery())
_RELEASE_NAMED = delete(_references).where(
    _references.c.session_id == bindparam("of_session"), _references.c.acquire_id == bindparam("of_acquire")
)
_RELEASE_ALL = delete(_references).where(_references.c.lab_id == bindparam("of_lab"))
_MOVE = update(_labs).where(_labs.c.id == bindparam("of_lab"), _labs.c.state.in_(bindparam("before", expanding=True)))


class Decision(Enum):
    """What an acquire does, given what is in the slot."""

    BOOT = "the slot is empty: boot"
    ATTACH = "the same lab runs: take a reference"
    TAKE_OVER = "the same lab was booted ahead and nobody has used it: take a reference, and wait for it if it boots"
    JOIN = "the same lab is booting: take a reference and wait for it"
    REPLACE = "another lab, or a used one, is idle: tear it down, then decide again"
    WAIT = "the slot's lab is on its way down: wait, then decide again"
    REFUSE = "the slot's lab is referenced and cannot be shared"


def decide(
    state: LabState | None, same_identity: bool, reuse: bool, ref_count: int, is_unused: bool = False
) -> Decision:
    """The acquire table of the contract for the live lab of a slot; `state` is None when it has none.

    `is_unused`: it was booted ahead and nobody has used it, so it is as good as one that boots now.
    """
    match state:
        case None:
            return Decision.BOOT
        case LabState.STOPPING:
            return Decision.WAIT
        case _ if is_unused:
            return Decision.TAKE_OVER if same_identity else Decision.REPLACE
        case LabState.RUNNING | LabState.STARTING if same_identity and reuse:
            return Decision.ATTACH if state == LabState.RUNNING else Decision.JOIN
        case LabState.RUNNING if ref_count == 0:
            return Decision.REPLACE
        case _:
            return Decision.REFUSE


def in_slot(transaction: Transaction, slot: int) -> Lab | None:
    """The live lab of a slot."""
    return transaction.scalar(_IN_SLOT, {"slot": slot})


def of_session(transaction: Transaction, session: Session) -> Lab | None:
    """The lab that an active session has: the starting or running one in its slot, if it is its own."""
    lab = own_in_slot(transaction, session)
    return None if lab is None or lab.state == LabState.STOPPING else lab


def own_in_slot(transaction: Transaction, session: Session) -> Lab | None:
    """The live lab in the session's slot, unless it is one that an earlier session left warm.

    For a session that waits: the one that is booted ahead for it.
    """
    if session.slot is None:
        return transaction.scalar(_OF_WAITING, {"session_id": session.id})
    lab = in_slot(transaction, session.slot)
    return lab if lab is not None and lab.session_id == session.id else None


def last_of_session(transaction: Transaction, session: Session) -> Lab | None:
    """The session's live lab, else the last one it had; None when it never had one."""
    if (lab := own_in_slot(transaction, session)) is not None:
        return lab
    last = select(Lab).where(Lab.session_id == session.id).order_by(Lab.created_at.desc()).limit(1)
    return transaction.scalar(last)


def before_session(transaction: Transaction, session: Session) -> Lab | None:
    """The lab of somebody before, on its way down where the session is active; it has to go before one can boot."""
    lab = None if session.slot is None else in_slot(transaction, session.slot)
    is_on_its_way = lab is not None and lab.state == LabState.STOPPING and lab.session_id != session.id
    return lab if is_on_its_way else None


def live(transaction: Transaction) -> Sequence[Lab]:
    """All labs that hold a slot."""
    return transaction.scalars(select(Lab).where(Lab.state.in_(LIVE_LAB_STATES)).order_by(Lab.slot)).all()


def ahead(transaction: Transaction) -> set[str]:
    """The ids of the live labs of sessions that wait."""
    its = select(Lab.id).join(Session, Session.id == Lab.session_id)
    return set(transaction.scalars(its.where(Session.state == SessionState.WAITING, Lab.state.in_(LIVE_LAB_STATES))))


def failed_since(transaction: Transaction, moment: datetime, limit: int) -> Sequence[str]:
    """The ids of the labs that failed to boot since then, of the last ones at most so many."""
    failed = select(Lab.id).where(Lab.state == LabState.FAILED, Lab.ended_at >= moment)
    return transaction.scalars(failed.order_by(Lab.ended_at.desc()).limit(limit)).all()


def claim(
    transaction: Transaction,
    lab_id: str,
    session: Session,
    identity: str,
    topology: str,
    now: datetime,
    acquire_id: str | None = None,
) -> Lab:
    """Take the session's slot for a new lab that is about to boot, with the claimant's reference on it.

    IntegrityError (uq_labs_live_slot) when the slot has a live lab.
    """
    if session.slot is None:
        raise ValueError(f"session {session.id} has no slot")
    lab = Lab(
        id=lab_id,
        session_id=session.id,
        slot=session.slot,
        identity=identity,
        topology=topology,
        state=LabState.STARTING,
        created_at=now,
    )
    transaction.add(lab)
    transaction.flush()
    history.acquired(transaction, session, lab, now)
    _refer(transaction, lab, session, now, acquire_id)
    return lab


def claim_ahead(
    transaction: Transaction, lab_id: str, session: Session, place: int, identity: str, topology: str, now: datetime
) -> Lab:
    """Take a free place for a lab that boots while its session waits; nobody has a reference to it.

    IntegrityError (uq_labs_live_slot) when the place has a live lab.
    """
    lab = Lab(
        id=lab_id,
        session_id=session.id,
        slot=place,
        identity=identity,
        topology=topology,
        state=LabState.STARTING,
        is_unused=True,
        created_at=now,
    )
    transaction.add(lab)
    transaction.flush()
    history.acquired(transaction, session, lab, now)
    return lab


def ref_count(transaction: Transaction, lab: Lab) -> int:
    """How many uses of the lab have not been released."""
    return transaction.scalar(_REFERENCES, {"lab_id": lab.id}) or 0


def add_reference(
    transaction: Transaction, lab: Lab, session: Session, now: datetime, acquire_id: str | None = None
) -> None:
    """Record one more use of the lab by the session, which it belongs to from now on."""
    if lab.session_id != session.id or lab.is_unused:
        lab.session_id, lab.is_unused = session.id, False
        history.acquired(transaction, session, lab, now)
        transaction.flush()
    _refer(transaction, lab, session, now, acquire_id)


def _refer(transaction: Transaction, lab: Lab, session: Session, now: datetime, acquire_id: str | None) -> None:
    reference = {"lab_id": lab.id, "session_id": session.id, "acquire_id": acquire_id, "created_at": now}
    transaction.execute(_REFER, reference)


def has_reference(transaction: Transaction, lab: Lab, session: Session, acquire_id: str) -> bool:
    """Whether the session has the reference of this name to the lab."""
    known = {"lab_id": lab.id, "session_id": session.id, "acquire_id": acquire_id}
    return transaction.scalar(_NAMED, known) is not None


def release_named(transaction: Transaction, session: Session, acquire_id: str) -> None:
    """Give back the session's reference of this name; nothing happens when it has none."""
    transaction.execute(_RELEASE_NAMED, {"of_session": session.id, "of_acquire": acquire_id})


def release(transaction: Transaction, lab: Lab, session: Session) -> None:
    """Give back the session's oldest reference; nothing happens when it has none."""
    transaction.execute(_RELEASE, {"of_lab": lab.id, "of_session": session.id})


def move(
    transaction: Transaction, lab_id: str, before: LabState | Iterable[LabState], after: LabState, **values: Any
) -> bool:
    """Change a lab's state if it is still in `before`; False when it is not. One that is loaded has to be refreshed.

    `values` are columns to set with it. A lab that leaves for good, or begins to, loses its references.
    """
    befores = [before] if isinstance(before, LabState) else list(before)
    for state in befores:
        if after not in LAB_TRANSITIONS[state]:
            raise ValueError(f"a lab never goes from {state} to {after}")
    changed = transaction.execute(_MOVE.values(state=after, **values), {"of_lab": lab_id, "before": befores})
    moved = bool(cast(CursorResult[tuple[()]], changed).rowcount)
    if moved and after != LabState.RUNNING:
        transaction.execute(_RELEASE_ALL, {"of_lab": lab_id})
    if moved:
        history.moved(transaction, lab_id, after, values)
    return moved
