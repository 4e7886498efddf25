"""Acquires that go on behind their answer, and who has given up which. Labs and references are not known here."""

from __future__ import annotations

import threading


class PendingAcquires:
    """Acquires, `(session id, acquire id)`, that are still being decided without anybody waiting."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str | None], int] = {}
        self._given_up: set[tuple[str, str | None]] = set()

    def begin(self, session_id: str, acquire_id: str | None) -> None:
        """Deciding goes on; one acquire that was asked twice may be decided twice."""
        with self._lock:
            self._counts[session_id, acquire_id] = self._counts.get((session_id, acquire_id), 0) + 1

    def end(self, session_id: str, acquire_id: str | None) -> None:
        """It was decided."""
        key = (session_id, acquire_id)
        with self._lock:
            self._counts[key] -= 1
            if not self._counts[key]:
                del self._counts[key]
                self._given_up.discard(key)

    def is_deciding(self, session_id: str) -> bool:
        """Whether anything goes on for a session, also what has no name."""
        with self._lock:
            return any(session == session_id for session, _ in self._counts)

    def give_up(self, session_id: str, acquire_id: str) -> None:
        """Whoever asked does not want the lab any more; nothing is remembered of an acquire that is decided."""
        with self._lock:
            if (session_id, acquire_id) in self._counts:
                self._given_up.add((session_id, acquire_id))

    def is_given_up(self, session_id: str, acquire_id: str | None) -> bool:
        """To be asked inside the transaction that would give it a reference."""
        with self._lock:
            return acquire_id is not None and (session_id, acquire_id) in self._given_up
