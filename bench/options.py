"""What one run is asked to do, by the environment; sizes and repetitions of all parts stand here and nowhere else."""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PARTS = {
    "a": "Polls and heartbeats at 16 connections",
    "b": "Promotion",
    "c": "Ten clients that arrive together",
    "d": "Thousands who wait",
    "e": "Acquire on top of netlab",
    "f": "Boot of real labs",
    "g": "Makespan of ten CI jobs",
    "h": "Memory",
    "i": "A day in fast motion",
}
PROFILE = "profile"


@dataclass(frozen=True)
class Options:
    """Sizes of the full run; `small` is what a test can wait for."""

    parts: tuple[str, ...] = tuple(PARTS)
    base: Path | None = None
    """Another tree of this project, measured as the column `before`."""
    with_peer: bool = True
    with_plots: bool = False
    repetitions: int = 3
    poll_seconds: float = 2.0
    connections: int = 16
    promotions: int = 100
    peer_promotions: int = 6
    arrivals: int = 10
    waiting: int = 5000
    crowd_seconds: float = 20.0
    nodes: tuple[int, ...] = (2, 20, 100)
    acquires: int = 7
    attaches: int = 50
    routers: tuple[int, ...] = (2, 8, 32)
    jobs: int = 10
    job_routers: int = 4
    test_seconds: float = 2.0
    day_sessions: int = 15_000
    """Beside other parts; alone it is a whole day of 100,000."""
    day_steps: int = 3
    day_threads: int = 8
    day_seconds: float = 60.0
    """After which no further step is begun, beside other parts."""
    held: int = 400
    profile_seconds: float = 5.0
    folder: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))
    """Where state folders are made; it decides which disk is measured."""

    @classmethod
    def from_environment(cls) -> Options:
        """`BENCH` (parts with commas between them), `BENCH_BASE`, `BENCH_PEER=0`, `BENCH_PLOTS=1`, `BENCH_SMALL=1`.

        `BENCH_SESSIONS` and `BENCH_WAITING` are sizes that slow machines may want smaller.
        Raises ValueError for a part that does not exist.
        """
        given = os.environ.get("BENCH", "").replace(",", " ").split()
        if unknown := [part for part in given if part not in (*PARTS, PROFILE)]:
            raise ValueError(f"BENCH={' '.join(unknown)}: there are {', '.join(PARTS)} and {PROFILE}")
        base = os.environ.get("BENCH_BASE")
        parts = tuple(given) or tuple(PARTS)
        alone = {"day_sessions": 100_000, "day_steps": 5, "day_seconds": math.inf} if parts == ("i",) else {}
        common: dict[str, Any] = {
            **alone,
            "parts": parts,
            "base": Path(base).resolve() if base else None,
            "with_peer": os.environ.get("BENCH_PEER") != "0",
            "with_plots": os.environ.get("BENCH_PLOTS") == "1",
            "waiting": int(os.environ.get("BENCH_WAITING") or cls.waiting),
        }
        if sessions := os.environ.get("BENCH_SESSIONS"):
            common["day_sessions"] = int(sessions)
        if os.environ.get("BENCH_SMALL") == "1":
            common |= {
                "with_peer": False,
                "repetitions": 1,
                "poll_seconds": 0.3,
                "promotions": 3,
                "arrivals": 3,
                "waiting": 50,
                "crowd_seconds": 2.0,
                "nodes": (2,),
                "acquires": 2,
                "attaches": 3,
                "routers": (2,),
                "jobs": 2,
                "test_seconds": 0.1,
                "day_sessions": 100,
                "held": 20,
            }
        return cls(**common)
