"""How long things will take, from how long they took. Nobody is promised anything.

Measured are the last sessions and boots on record; medians, because one session that was forgotten for hours says
nothing about the others. What polls ask is computed once after each change of who is active (`Outlook`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from sqlalchemy import ColumnElement, Float, bindparam, func, select
from sqlalchemy.orm import Session as Transaction

from remote_lab.core.board import Entry, Sight
from remote_lab.core.db import Database
from remote_lab.core.models import Lab, Session, Token
from remote_lab.states import LabState, SessionState

MEASURED = 50
"""How many of the last sessions or boots count."""


def _seconds(begin: Any, end: Any) -> ColumnElement[float]:
    """Between two columns, to a millisecond and better; SQLite has no other difference of times."""
    return (func.julianday(end, type_=Float) - func.julianday(begin, type_=Float)) * 86400.0


_HOLDS = (
    select(_seconds(Session.activated_at, Session.ended_at))
    .where(Session.state == SessionState.ENDED, Session.activated_at.is_not(None))
    .order_by(Session.ticket.desc())
    .limit(MEASURED)
)
_LAST_OF_LAB = (
    select(Lab.session_id).where(Lab.identity == bindparam("identity")).order_by(Lab.created_at.desc()).limit(MEASURED)
)
_HOLDS_OF_LAB = _HOLDS.where(Session.id.in_(_LAST_OF_LAB))
_BOOTS = (
    select(_seconds(Lab.created_at, Lab.running_at))
    .where(Lab.identity == bindparam("identity"), Lab.running_at.is_not(None))
    .order_by(Lab.created_at.desc())
    .limit(MEASURED)
)
_UP = select(Lab.session_id, Lab.identity).where(
    Lab.session_id.in_(bindparam("of_sessions", expanding=True)),
    Lab.state.in_((LabState.STARTING, LabState.RUNNING)),
)


@dataclass(frozen=True)
class Expectation:
    """How long sessions may go on, as far as it can be known."""

    turn: int
    """The turn of the board that it is for."""
    usual_seconds: float | None
    """For which a session keeps its slot; None while none was measured."""
    shortest_seconds: float | None
    """For which one of the last kept it."""
    active: Mapping[str, float]
    """For which each active session will keep it, by its id, where its lab tells."""


class Outlook:
    """What was measured last, and the names of tokens; safe for many threads.

    It holds until somebody becomes active or ends, or a lab changes. Then the first who may wait measures again, and
    the others make do with the last.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._last: Expectation | None = None
        self._names: dict[int, str] = {}

    def expectation(self, turn: int, active: Iterable[Entry]) -> Expectation:
        """For who is active in a turn of the board; reads the database once for each turn."""
        last = self._last
        # A later one is as good: it was read when somebody looked at the board later.
        if last is not None and (last.turn >= turn or self._lock.locked()):
            return last
        with self._lock:
            if self._last is None or self._last.turn < turn:
                self._last = self._measure(turn, active)
            return self._last

    def known(self, sight: Sight, may_be_old: bool) -> Expectation | None:
        """The same without waiting for anything; None when somebody has to measure, or to look up a name.

        `may_be_old`: one of an earlier turn is good enough, also when nobody measures anew.
        """
        last = self._last
        if last is None or (last.turn < sight.turn and not may_be_old and not self._lock.locked()):
            return None
        names = (entry.token_id for entry in sight.active)
        return last if all(token_id is None or token_id in self._names for token_id in names) else None

    def shortest_seconds(self) -> float | None:
        """For which one of the last sessions kept its slot, the quickest, as far as it is known."""
        return None if self._last is None else self._last.shortest_seconds

    def name(self, token_id: int | None) -> str | None:
        """What a token is called, which never changes."""
        if token_id is None:
            return None
        if token_id not in self._names:
            with self._database.read() as transaction:
                names = transaction.execute(select(Token.id, Token.name)).all()
            self._names = {row.id: row.name for row in names}
        return self._names.get(token_id)

    def turn_in_seconds(self, sight: Sight, slots: int, expected: Expectation) -> float | None:
        """The seconds until the turn of a session that waits; None when nothing was measured yet."""
        usual = expected.usual_seconds
        if usual is None:
            return None
        now = self._database.clock.now()
        busy = []
        for entry in sight.active:
            since = entry.activated_at or now
            busy.append(max(0.0, expected.active.get(entry.id, usual) - (now - since).total_seconds()))
        free = max(0, slots - len(busy))
        return turn_in_seconds(busy, free, max(0, sight.position - len(busy)), usual)

    def _measure(self, turn: int, active: Iterable[Entry]) -> Expectation:
        ids = [entry.id for entry in active]
        expected: dict[str, float] = {}
        with self._database.read() as transaction:
            holds = recent_holds(transaction)
            for session_id, identity in transaction.execute(_UP, {"of_sessions": ids}).all() if ids else ():
                if of_this_lab := recent_holds(transaction, identity):
                    expected[session_id] = median(of_this_lab)
        usual, shortest = (median(holds), min(holds)) if holds else (None, None)
        return Expectation(turn, usual, shortest, expected)


def turn_in_seconds(busy: Sequence[float], free_slots: int, waiting_in_front: int, hold_seconds: float) -> float:
    """Return the seconds until a session's turn.

    `busy` are the seconds that each active session will go on; each of the waiting ones in front will then hold a slot
    for `hold_seconds`: whoever is next takes the slot that is free first.
    """
    slots = sorted([*busy, *([0.0] * free_slots)])
    if hold_seconds <= 0:
        return slots[0]
    while True:
        # Until the last slot is free the others take turns: so many begin before it does.
        begun = [int((slots[-1] - free_at) / hold_seconds) for free_at in slots]
        if sum(begun) <= waiting_in_front:
            break
        slots.pop()
    left = waiting_in_front - sum(begun)
    free_at = sorted(one + count * hold_seconds for one, count in zip(slots, begun, strict=True))
    return free_at[left % len(free_at)] + left // len(free_at) * hold_seconds


def recent_holds(transaction: Transaction, identity: str | None = None) -> list[float]:
    """Return for how many seconds the last sessions kept their slots: those that booted this lab, or all."""
    if identity is None:
        return list(transaction.scalars(_HOLDS))
    return list(transaction.scalars(_HOLDS_OF_LAB, {"identity": identity}))


def boot_seconds(transaction: Transaction, identity: str) -> float | None:
    """Return how long this lab takes to boot; None if it never did."""
    booted_seconds = transaction.scalars(_BOOTS, {"identity": identity}).all()
    return median(booted_seconds) if booted_seconds else None
