"""i. What a day of traffic leaves behind: memory, disk and open files while thousands of sessions pass through."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.memory import open_files, processor_seconds, rss_kib
from bench.options import Options
from bench.report import OURS, Goal, Report, Row
from bench.targets import Target, ours, roots
from remote_lab.core.db import WAL_BYTES

KEEPING: dict[str, Any] = {"HISTORY_DAYS": 0}
"""Settings that shorten what is kept, so that a day's end shows in minutes."""
MEMORY = Path("/dev/shm")
SLOTS = 4
SETTLE_SECONDS = 1.0
MOST_GROWTH = 1.1
FULL_SESSIONS = 40_000
"""Until then tables fill up to their bounds: 10,000 that have ended, and those that come until they are pruned. Indexes
grow on, by a twentieth, until each row has been replaced a few times: pages where rows come and go stay partly empty.
"""


def measure(report: Report, options: Options, folder: Path, _peer_python: str | None) -> None:
    """One tree after the other: a day takes all the machine there is."""
    days: dict[str, list[dict[str, float]]] = {}
    for tree in roots(options):
        with _in_memory(folder) as quick, ours(quick, tree, SLOTS=SLOTS, **KEEPING) as target:
            days[target.name] = _fast_motion(report, target, options)
    report.series["day"] = days[OURS]
    if days[OURS][-1]["sessions"] < FULL_SESSIONS:
        report.cut_short.add("i")
    report.add(_rows(days))


@contextmanager
def _in_memory(folder: Path) -> Iterator[Path]:
    """A folder without a disk where there is one: a day is about what it leaves, not about how fast a disk is."""
    quick = MEMORY if os.access(MEMORY, os.W_OK) else folder
    with tempfile.TemporaryDirectory(prefix="rlab-bench-", dir=quick) as name:
        yield Path(name)


def _fast_motion(report: Report, target: Target, options: Options) -> list[dict[str, float]]:
    """What is weighed after each step."""
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
    return state


def _rows(days: Mapping[str, Sequence[Mapping[str, float]]]) -> list[Row]:
    """Flat is what does not grow once the tables are full."""
    total = f"{days[OURS][-1]['sessions']:,} sessions".replace(",", " ")
    rates = {name: [state[-1]["sessions"] / sum(one["seconds"] for one in state)] for name, state in days.items()}
    used = {name: _milliseconds(state) for name, state in days.items()}
    rows = [
        Row("i", f"{total} through the queue, in memory instead of on disk", "1/s", rates),
        Row("i", "processor time of the server per session, after the first step", "ms", used),
    ]
    for key, unit in (("RSS", "MiB"), ("database", "MiB"), ("open files", "")):
        weights = {name: [one[key] for one in state] for name, state in days.items()}
        rows.append(Row("i", f"{key} at each step of {total}", unit, weights))
        growth = {name: _growth(state, key) for name, state in days.items()}
        rows.append(Row("i", f"{key}, last step to the first with full tables", "ratio", growth, (Goal(MOST_GROWTH),)))
    log = {name: [one["log"] for one in state] for name, state in days.items()}
    rows.append(Row("i", f"write-ahead log at each step of {total}", "MiB", log, (Goal(WAL_BYTES / 2**20),)))
    return rows


def _milliseconds(state: Sequence[Mapping[str, float]]) -> list[float]:
    first, last = state[0], state[-1]
    sessions = last["sessions"] - first["sessions"]
    return [1000 * (last["processor"] - first["processor"]) / sessions] if sessions else []


def _growth(state: Sequence[Mapping[str, float]], key: str) -> list[float]:
    full = [one[key] for one in state if one["sessions"] >= FULL_SESSIONS]
    return [full[-1] / full[0]] if len(full) > 1 else []


def _weigh(target: Target) -> dict[str, float]:
    [database] = target.state_dir.glob("remote-lab.sqlite3")
    return {
        "RSS": rss_kib(target.worker) / 1024,
        "database": database.stat().st_size / 2**20,
        "log": database.with_name(f"{database.name}-wal").stat().st_size / 2**20,
        "processor": processor_seconds(target.worker),
        "open files": float(open_files(target.worker)),
    }
