"""i. What a day of traffic leaves behind: memory, disk and open files while thousands of sessions pass through."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.memory import open_files, processor_seconds, rss_kib
from bench.options import Options
from bench.report import OURS, Goal, Report, Row
from bench.targets import Target, ours
from remote_lab.core.db import WAL_BYTES

KEEPING: dict[str, Any] = {"HISTORY_DAYS": 0}
"""Settings that shorten what is kept, so that a day's end shows in minutes."""
MEMORY = Path("/dev/shm")
SLOTS = 4
SETTLE_SECONDS = 1.0
FULL_SESSIONS = 20_000
"""Until then tables fill up to their bounds: 10,000 that have ended, and those that come until they are pruned."""


def measure(report: Report, options: Options, folder: Path, _peer_python: str | None) -> None:
    """It takes all the machine there is."""
    with _in_memory(folder) as quick, ours(quick, SLOTS=SLOTS, **KEEPING) as target:
        report.add(_fast_motion(report, target, options))


@contextmanager
def _in_memory(folder: Path) -> Iterator[Path]:
    """A folder without a disk where there is one: a day is about what it leaves, not about how fast a disk is."""
    quick = MEMORY if os.access(MEMORY, os.W_OK) else folder
    with tempfile.TemporaryDirectory(prefix="rlab-bench-", dir=quick) as name:
        yield Path(name)


def _fast_motion(report: Report, target: Target, options: Options) -> list[Row]:
    state: list[dict[str, float]] = []
    arguments = (options.day_sessions, options.day_steps, options.day_threads, SLOTS)
    began = time.monotonic()
    with target.start_actor("day.py", *arguments) as day:
        assert day.stdin
        assert day.stdout
        for line in day.stdout:
            time.sleep(SETTLE_SECONDS)
            state.append({**json.loads(line), **_weigh(target)})
            if time.monotonic() - began > options.day_seconds:
                day.stdin.close()
            else:
                print("go", file=day.stdin, flush=True)
    if day.returncode or not state:
        raise RuntimeError(f"the day ended after {len(state)} steps with {day.returncode}")
    if len(state) < options.day_steps:
        report.notes.append(
            f"the day was given up after {state[-1]['sessions']} sessions, it would have taken too long"
        )
    report.series["day"] = state
    return _rows(state)


def _rows(state: list[dict[str, float]]) -> list[Row]:
    """Flat is what does not grow once the tables are full."""
    last = state[-1]
    total = f"{last['sessions']:,} sessions".replace(",", " ")
    rate = last["sessions"] / sum(one["seconds"] for one in state)
    used = 1000 * (last["processor"] - state[0]["processor"]) / (last["sessions"] - state[0]["sessions"] or 1)
    rows = [
        Row("i", f"{total} through the queue, in memory instead of on disk", "1/s", {OURS: [rate]}),
        Row("i", "processor time of the server per session", "ms", {OURS: [used] if used else []}),
    ]
    full = [one for one in state if one["sessions"] >= FULL_SESSIONS]
    for key, unit in (("RSS", "MiB"), ("database", "MiB"), ("open files", "")):
        rows.append(Row("i", f"{key} at each step of {total}", unit, {OURS: [one[key] for one in state]}))
        ratio = [last[key] / full[0][key]] if len(full) > 1 else []
        rows.append(Row("i", f"{key}, last step to the first with full tables", "ratio", {OURS: ratio}, (Goal(1.1),)))
    log = [one["log"] for one in state]
    rows.append(Row("i", f"write-ahead log at each step of {total}", "MiB", {OURS: log}, (Goal(WAL_BYTES / 2**20),)))
    return rows


def _weigh(target: Target) -> dict[str, float]:
    [database] = target.state_dir.glob("remote-lab.sqlite3")
    return {
        "RSS": rss_kib(target.worker) / 1024,
        "database": database.stat().st_size / 2**20,
        "log": database.with_name(f"{database.name}-wal").stat().st_size / 2**20,
        "processor": processor_seconds(target.worker),
        "open files": float(open_files(target.worker)),
    }
