"""How much the judging tests do: a short form in `make test`, the long one in `make soak`."""

from __future__ import annotations

import os
import random

LONG = os.environ.get("SOAK") == "1"
"""`make soak` sets it."""


def choose_seed() -> int:
    """A new seed for each run, or the one in SOAK_SEED to see a failure again; pytest shows it when the test fails."""
    seed = int(os.environ.get("SOAK_SEED") or random.SystemRandom().randrange(1_000_000))
    print("SOAK_SEED", seed)  # noqa: T201 - so that a failure can be seen again
    return seed
