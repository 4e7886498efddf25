"""Connections whose requests are held: they cost a place and an open file, and no thread.

What wakes one may come on any thread; everything else belongs to the loop of the worker, which is rung for. What is
held, and what is answered in the end, is not known here.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Guest = TypeVar("Guest")


@dataclass(eq=False)
class Stay(Generic[Guest]):
    """One request that is held."""

    guest: Guest
    deadline: float
    end: Callable[[], None]


class Parking(Generic[Guest]):
    """The held requests of a worker; each guest has one at a time."""

    def __init__(self, places: int, ring: Callable[[], None]) -> None:
        """`ring` makes the loop ask what is due; it is called on any thread."""
        self._places = places
        self._ring = ring
        self._stays: dict[Guest, Stay[Guest]] = {}
        self._woken: deque[Stay[Guest]] = deque()
        self._has_rung = False
        self._next_deadline = math.inf

    def __len__(self) -> int:
        return len(self._stays)

    def __contains__(self, guest: object) -> bool:
        return guest in self._stays

    @property
    def is_full(self) -> bool:
        """Whether nobody else can be held."""
        return len(self._stays) >= self._places

    def park(self, guest: Guest, deadline: float, begin: Callable[[Callable[[], None]], Callable[[], None]]) -> None:
        """Hold a guest until `deadline`, on the clock of `due`, or until what `begin` is given was called.

        `begin` returns what ends the hold; it may be woken before that.
        """
        stay = Stay(guest, deadline, _nothing)
        self._stays[guest] = stay
        self._next_deadline = min(self._next_deadline, deadline)
        try:
            stay.end = begin(lambda: self._wake(stay))
        except BaseException:
            del self._stays[guest]
            raise

    def leave(self, guest: Guest) -> None:
        """The guest is held no more; nothing when it was not."""
        if (stay := self._stays.pop(guest, None)) is not None:
            stay.end()

    def due(self, now: float) -> list[Guest]:
        """Take out those who were woken, in that order, then those whose time is over."""
        self._has_rung = False  # before looking: whoever comes behind the look rings again
        found = []
        while self._woken:
            stay = self._woken.popleft()
            if self._stays.get(stay.guest) is stay:
                found.append(stay.guest)
                self.leave(stay.guest)
        if now >= self._next_deadline:
            late = [stay.guest for stay in self._stays.values() if stay.deadline <= now]
            for guest in late:
                self.leave(guest)
            found += late
            self._next_deadline = min((stay.deadline for stay in self._stays.values()), default=math.inf)
        return found

    def everybody(self) -> list[Guest]:
        """Take out all."""
        guests = list(self._stays)
        for guest in guests:
            self.leave(guest)
        return guests

    def seconds_left(self, now: float) -> float:
        """Until somebody's time may be over."""
        return max(0.0, self._next_deadline - now)

    def _wake(self, stay: Stay[Guest]) -> None:
        self._woken.append(stay)
        if not self._has_rung:
            self._has_rung = True
            self._ring()


def _nothing() -> None:
    """No hold has begun."""
