"""How long things will take, from how long they took. Nobody is promised anything.

Measured are the last sessions and boots on record; medians, because one session that was forgotten for hours says
nothing about the others.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from datetime import datetime
from statistics import median

from sqlalchemy import Row, select
from sqlalchemy.orm import Session as Transaction

from remote_lab.core.models import Lab, Session
from remote_lab.states import SessionState

MEASURED = 50
"""How many of the last sessions or boots count."""


def turn_in_seconds(busy: Sequence[float], free_slots: int, waiting_in_front: int, hold_seconds: float) -> float:
    """Return the seconds until a session's turn.

    `busy` are the seconds that each active session will go on; each of the waiting ones in front will then hold a slot
    for `hold_seconds`.
    """
    slots = [*busy, *([0.0] * free_slots)]
    heapq.heapify(slots)
    for _ in range(waiting_in_front):
        heapq.heapreplace(slots, slots[0] + hold_seconds)
    return slots[0]


def hold_seconds(transaction: Transaction, identity: str | None = None) -> float | None:
    """Return how long a session keeps its slot: the median of those that had this lab, else of all; None if unknown."""
    ended = select(Session.activated_at, Session.ended_at).where(
        Session.state == SessionState.ENDED, Session.activated_at.is_not(None)
    )
    if identity is not None:
        ended = ended.where(Session.id.in_(select(Lab.session_id).where(Lab.identity == identity)))
    known = _median(transaction.execute(ended.order_by(Session.ticket.desc()).limit(MEASURED)))
    return hold_seconds(transaction) if known is None and identity is not None else known


def boot_seconds(transaction: Transaction, identity: str) -> float | None:
    """Return how long this lab takes to boot; None if it never did."""
    booted = select(Lab.created_at, Lab.running_at).where(Lab.identity == identity, Lab.running_at.is_not(None))
    return _median(transaction.execute(booted.order_by(Lab.created_at.desc()).limit(MEASURED)))


def _median(spans: Iterable[Row[datetime | None, datetime | None]]) -> float | None:
    seconds = [(end - begin).total_seconds() for begin, end in spans if begin is not None and end is not None]
    return median(seconds) if seconds else None
