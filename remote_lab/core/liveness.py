"""How long something has been silent. Kept in memory on the monotonic clock, on purpose.

A heartbeat costs no disk; a clock that jumps ends nobody's session; and after a restart everything counts as seen at
the start, so that silence while the server was down is held against nobody.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager


class Liveness:
    """When each key was last seen; a key never seen counts as seen when this object was made."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds that never go back."""
        self._clock = clock
        self._lock = threading.Lock()
        self._start = clock()
        self._seen: dict[str, float] = {}
        self._present: Counter[str] = Counter()

    def touch(self, key: str) -> None:
        """The key is alive now."""
        with self._lock:
            self._seen[key] = self._clock()

    @contextmanager
    def present(self, key: str) -> Iterator[None]:
        """The key is alive for the length of a block: an operation is in flight for it."""
        with self._lock:
            self._present[key] += 1
        try:
            yield
        finally:
            with self._lock:
                self._present[key] -= 1

    def silence_seconds(self, key: str) -> float:
        """Seconds since the key was last seen; 0 while it is present."""
        with self._lock:
            if self._present[key]:
                return 0.0
            return self._clock() - self._seen.get(key, self._start)

    def now(self) -> float:
        """The time on this object's clock, for `forget_others`."""
        return self._clock()

    def forget_others(self, keys: Collection[str], seen_before: float) -> None:
        """Forget all keys but these and those seen at `seen_before` or later, who may be too new to be in `keys`."""
        with self._lock:
            self._seen = {key: seen for key, seen in self._seen.items() if key in keys or seen >= seen_before}
            self._present = +self._present
