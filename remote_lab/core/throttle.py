"""How much somebody has had lately, in bounded memory on the monotonic clock. What it is of is not known here."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable


class Tally:
    """Counts per key within a window that begins with the first count; keys that were counted long ago go first."""

    def __init__(
        self, limit: int, window_seconds: float, max_keys: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = limit
        self._window_seconds = window_seconds
        self._max_keys = max_keys
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def count(self, key: Hashable) -> int:
        """Count one more; returns the seconds until the window is over when that is beyond the limit, else 0."""
        now = self._clock()
        with self._lock:
            began, before = self._counts.pop(key, (now, 0))
            if now - began >= self._window_seconds:
                began, before = now, 0
            self._counts[key] = (began, min(before + 1, self._limit + 1))
            if len(self._counts) > self._max_keys:
                self._counts.popitem(last=False)
        return math.ceil(began + self._window_seconds - now) if before >= self._limit else 0


class Budget:
    """Amounts per key within the time that passed last, kept in steps so that a key costs a bounded list."""

    STEPS = 60

    def __init__(self, limit: int, window_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._step_seconds = window_seconds / self.STEPS
        self._clock = clock
        self._lock = threading.Lock()
        self._spent: dict[Hashable, deque[tuple[int, int]]] = {}

    def spend(self, key: Hashable, amount: int) -> int:
        """Take an amount; returns the seconds until there is room for it when there is none, else 0.

        Nothing is taken then. An amount beyond the limit fits when nothing was taken before.
        """
        now = self._clock()
        step = int(now / self._step_seconds)
        with self._lock:
            taken = self._spent.setdefault(key, deque())
            while taken and taken[0][0] <= step - self.STEPS:
                taken.popleft()
            too_much = sum(one for _, one in taken) + amount - self._limit
            if taken and too_much > 0:
                return self._seconds_until_free(taken, too_much, now)
            if taken and taken[-1][0] == step:
                taken[-1] = (step, taken[-1][1] + amount)
            else:
                taken.append((step, amount))
        return 0

    def _seconds_until_free(self, taken: deque[tuple[int, int]], too_much: int, now: float) -> int:
        last = taken[-1][0]
        for step, amount in taken:
            too_much -= amount
            last = step
            if too_much <= 0:
                break
        return max(1, math.ceil((last + self.STEPS) * self._step_seconds - now))
