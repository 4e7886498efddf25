"""netlab's word on labs: each asks a process, so it is asked once for all who look at about the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

FRESH_SECONDS = 5.0
"""How old it may be."""


class Statuses:
    """What was said of each lab lately; safe to use from many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds that never go back."""
        self._clock = clock
        self._lock = threading.Lock()
        self._asked: dict[str, tuple[float, Future[str]]] = {}
        """When it was asked of each lab, and the answer, also while that is awaited."""

    def last(self, lab_id: str) -> str | None:
        """What was said of a lab lately, without asking; None when it was not asked, or has not answered yet."""
        with self._lock:
            since, answer = self._asked.get(lab_id, (0.0, None))
        if answer is None or not answer.done() or answer.exception() or self._clock() - since >= FRESH_SECONDS:
            return None
        return answer.result()

    def of(self, lab_id: str, ask: Callable[[], str]) -> str:
        """What is said of a lab; `ask` is called unless somebody else asks at this moment, or has a moment ago."""
        now = self._clock()
        with self._lock:
            self._asked = {
                one: (since, answer)
                for one, (since, answer) in self._asked.items()
                if now - since < FRESH_SECONDS or not answer.done()
            }
            others = self._asked.get(lab_id)
            answer: Future[str] = Future()
            if others is None:
                self._asked[lab_id] = (now, answer)
        if others is not None:
            return others[1].result()
        try:
            answer.set_result(ask())
        except BaseException as error:
            with self._lock:
                self._asked.pop(lab_id, None)
            answer.set_exception(error)
            raise
        return answer.result()
