"""What has been there for a while, by looks that are taken now and then. What it is of is not known here."""

from __future__ import annotations

import time
from collections.abc import Collection, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Lasting(Generic[Key]):
    """Since when each of some things has been there at every look.

    Args:
        seconds: after which a thing lasts.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[Key, float] = {}

    def of(self, present: Collection[Key]) -> list[Key]:
        """Take a look: return what lasts of what is there now; whatever is not begins anew when it comes back."""
        now = time.monotonic()
        self._since = {key: self._since.get(key, now) for key in present}
        return [key for key, since in self._since.items() if now - since > self._seconds]
