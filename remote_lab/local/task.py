"""What a guard is told by whoever starts it, and how it answers when it cannot begin."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Self

BUSY, WATCHED_ENDED = 3, 4
"""Exit statuses: somebody else has the lock; there is no process to watch."""


@dataclass(frozen=True)
class Task:
    """One run to guard, or one to clean up after whose guard was killed: that is a task without `watch_pid`."""

    run_dir: str
    watch_pid: int | None = None
    watch_started: int | None = None
    """When it began, see `kernel.start_time`."""
    joined_url: str | None = None
    """The server that is used; None: one has to be started."""
    joined_provider: str = ""
    state_is_lost: bool = False
    """The folder was removed while labs of its server may run."""

    def as_argument(self) -> str:
        """What `from_argument` reads it from."""
        return json.dumps(asdict(self))

    @classmethod
    def from_argument(cls, text: str) -> Self:
        """What was told."""
        return cls(**json.loads(text))
