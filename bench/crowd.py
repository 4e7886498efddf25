"""d. Thousands who wait: what everyone else feels, how late the promoted ones notice, what each costs in memory.

Two slots: one is kept by the session whose heartbeats are measured, in the other the turns go on.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.memory import rss_kib
from bench.options import Options
from bench.report import FLOOR, OURS, Goal, Report, Row
from bench.stats import median, percentile
from bench.targets import Target, ours, roots

QUIET_SECONDS = 3.0
TURN_SECONDS = 0.1


def measure(report: Report, options: Options, folder: Path, _peer_python: str | None) -> None:
    """One tree after the other: two crowds would measure each other. The floor is the same server without one."""
    found = {}
    for tree in roots(options):
        with ours(folder, tree, SLOTS=2, MAX_WAITING=options.waiting + 1000) as target:
            found[target.name] = _endure(target, options)
    for name, one in found.items():
        report.series[f"crowd {name}"] = {"late": one["late"], "calls": one["calls"]}
    report.add(_rows(found, options))
    if found[OURS]["failed"] or found[OURS]["broken"]:
        report.notes.append(f"of the crowd: {found[OURS]['failed']} calls without an answer, {found[OURS]['broken']}")


def _endure(target: Target, options: Options) -> dict[str, Any]:
    active = target.open_session()
    with _probe(target, active) as quiet:
        time.sleep(min(QUIET_SECONDS, options.crowd_seconds))
    before_kib = rss_kib(target.worker)
    arguments = (options.waiting, options.crowd_seconds, TURN_SECONDS)
    with target.start_actor("crowd.py", *arguments) as crowd:
        assert crowd.stdin
        assert crowd.stdout
        opened = json.loads(crowd.stdout.readline())
        after_kib = rss_kib(target.worker)
        with _probe(target, active) as calls:
            print("go", file=crowd.stdin, flush=True)
            seen: dict[str, Any] = json.loads(crowd.stdout.readline())
        crowd.kill()
    return {**seen, **opened, "quiet": quiet, "calls": calls, "kib": (after_kib - before_kib) / options.waiting}


@contextmanager
def _probe(target: Target, active: str) -> Iterator[dict[str, list[float]]]:
    """What everyone else's calls take meanwhile, in milliseconds; filled in at the end."""
    times: dict[str, list[float]] = {}
    with target.start_actor("probe.py", active) as probe:
        yield times
        said, _ = probe.communicate("enough")
    if probe.returncode:
        raise subprocess.CalledProcessError(probe.returncode, "probe.py")
    times.update(json.loads(said))


def _rows(found: dict[str, dict[str, Any]], options: Options) -> list[Row]:
    people = f"beside {options.waiting} who wait"
    goal = (Goal(250),) if options.waiting >= 5000 else ()
    rows = []
    for what in sorted({what for seen in found.values() for what in seen["calls"]}):
        values = {name: _by_thirds(seen["calls"][what]) for name, seen in found.items() if what in seen["calls"]}
        if quiet := found[OURS]["quiet"].get(what):
            values[FLOOR] = [percentile(quiet, 0.99)]
        rows.append(Row("d", f"{what} {people}, p99 of each third (floor: nobody waits)", "ms", values, goal))
    everything = {name: [one for some in seen["calls"].values() for one in some] for name, seen in found.items()}
    late = {name: [one * 1000 for one in seen["late"]] for name, seen in found.items() if seen["late"]}
    tails = {name: [percentile(some, 0.99)] for name, some in everything.items()}
    rows.append(Row("d", f"all of these {people}, p99", "ms", tails, goal, "crowd" if goal else ""))
    rows.append(
        Row("d", f"all of these {people}, worst", "ms", {name: [max(some)] for name, some in everything.items()})
    )
    for what, of in (("median", median), ("p99", lambda some: percentile(some, 0.99)), ("worst", max)):
        noticed = {name: [of(some)] for name, some in late.items()}
        rows.append(Row("d", f"end of a turn to the next one knowing, {what}", "ms", noticed))
    lags = {name: [seen["lag"] * 1000] for name, seen in found.items()}
    rows.append(Row("d", "of it the clients' own delay, at worst", "ms", lags))
    for part, what, unit, key in (
        ("d", f"turns in {options.crowd_seconds:g} s", "", "turns"),
        ("d", "requests of those who wait", "1/s", "asked_per_second"),
        ("d", "POST /session when they come, 16 at a time", "1/s", "opened_per_second"),
        ("h", f"memory per waiting session, of {options.waiting}", "KiB", "kib"),
    ):
        rows.append(Row(part, what, unit, {name: [seen[key]] for name, seen in found.items()}))
    return rows


def _by_thirds(times: list[float]) -> list[float]:
    """The p99 of each third of the time, so that the spread shows."""
    size = -(-len(times) // 3)
    return [percentile(times[start : start + size], 0.99) for start in range(0, len(times), size)]
