"""Holding requests until something changes, without starving the others.

Whoever waits for a lab looks again after every change of the state, which is few requests and a few milliseconds of
reading, and in return no waker has to know who waits for what. Whoever waits for their turn is many: see `board.py`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from remote_lab.errors import TooManyHeldRequests

View = TypeVar("View")

NO_ROOM_SECONDS = 1
"""After which to ask again, where nobody more can be held."""


class Changes:
    """Counts changes and wakes those who wait for the next one."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._count = 0
        self._closed = False
        self._on_close: list[Callable[[], None]] = []

    @property
    def closed(self) -> bool:
        """Whether the server lets everybody go."""
        return self._closed

    def count(self) -> int:
        """How many changes there were; to be asked before looking at the state that may change."""
        with self._condition:
            return self._count

    def happened(self) -> None:
        """Something changed."""
        with self._condition:
            self._count += 1
            self._condition.notify_all()

    def close(self) -> None:
        """Let everybody go, now and from now on."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        for let_go in self._on_close:
            let_go()

    def on_close(self, let_go: Callable[[], None]) -> None:
        """Let others who hold somebody let them go as well."""
        self._on_close.append(let_go)

    def wait(self, count: int, seconds: float) -> bool:
        """Wait until there were more than `count` changes; False when the time is over or everybody is let go."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._count > count, seconds)
            return not self._closed and self._count > count

    def watch(self, look: Callable[[], View], is_enough: Callable[[View], bool], seconds: float) -> View:
        """Look, and look again after every change, until what is seen is enough or the time is over.

        Returns what was seen last; what `look` raises ends the watch.
        """
        deadline = time.monotonic() + seconds
        while True:
            count = self.count()
            seen = look()
            if is_enough(seen) or not self.wait(count, max(0.0, deadline - time.monotonic())):
                return seen


class Room:
    """A number of places for held requests."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._free = threading.BoundedSemaphore(places)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take a place for the length of a block; TooManyHeldRequests when there is none."""
        if not self._free.acquire(blocking=False):
            raise TooManyHeldRequests(self._places)
        try:
            yield
        finally:
            self._free.release()
