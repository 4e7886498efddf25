"""a. What a waiting client asks every few seconds, and a holding one every minute."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from bench.floor import sqlite_read_microseconds
from bench.load import Load, put_load
from bench.options import Options
from bench.report import BEFORE, FLOOR, OURS, PEER, Goal, Report, Row
from bench.targets import Target, bare_flask, ours, peer, trees

QUEUE = 12
POSITION = 10
TOKENS = "ours, with tokens"
ASKED = (
    ("polls", "GET /session/ID of one who waits", "GET"),
    ("heartbeats", "POST /session/heartbeat", "POST"),
)


def measure(report: Report, options: Options, folder: Path, peer_python: str | None) -> None:
    """All servers are up at once; each gets its turn of load in each repetition."""
    with ExitStack() as stack:
        targets: dict[str, Target] = {one.name: one for one in stack.enter_context(trees(folder, options))}
        targets[TOKENS] = stack.enter_context(ours(folder, token=True))
        targets[FLOOR] = stack.enter_context(bare_flask())
        if peer_python:
            targets[PEER] = stack.enter_context(peer(folder, peer_python))
        queues = {
            name: ["any"] * QUEUE if name == FLOOR else [target.open_session() for _ in range(QUEUE)]
            for name, target in targets.items()
        }
        for key, what, method in ASKED:
            loads: dict[str, list[Load]] = {name: [] for name in targets}
            for _ in range(options.repetitions):
                for name, target in targets.items():
                    loads[name].append(_load(folder, target, method, queues[name], options))
            report.add(_rows(key, what, loads))
        database = targets[OURS].state_dir / "remote-lab.sqlite3"
        reads = [sqlite_read_microseconds(database) for _ in range(options.repetitions)]
        polls = next(row for row in report.rows if row.key == "polls")
        per_poll = [1e6 / one for one in polls.values[OURS]]
        report.add([Row("a", "a poll, beside one read of SQLite in the process", "us", {OURS: per_poll, FLOOR: reads})])


def _load(folder: Path, target: Target, method: str, queue: list[str], options: Options) -> Load:
    headers = {"Authorization": f"Bearer {target.token}"} if target.token else {}
    if method == "GET":
        url = f"{target.url}/session/{queue[POSITION]}"
    else:
        url, headers = f"{target.url}/session/heartbeat", headers | {"X-Session-ID": queue[0]}
    return put_load(folder, method, url, headers, options.connections, options.poll_seconds)


def _rows(key: str, what: str, loads: dict[str, list[Load]]) -> list[Row]:
    columns = [name for name in (OURS, BEFORE, FLOOR, PEER) if name in loads]
    rates = {name: [load.per_second for load in loads[name]] for name in columns}
    tails = {name: [load.p99 for load in loads[name]] for name in columns}
    with_tokens = [load.per_second for load in loads[TOKENS]]
    goals = (Goal(0.8, is_lower=True, per=FLOOR), Goal(1.0, is_lower=True, per=PEER))
    return [
        Row("a", what, "requests/s", rates, goals, key),
        Row("a", f"{what}, p99", "ms", tails, (Goal(1.0, per=PEER),)),
        Row("a", f"{what}, with tokens", "requests/s", {**rates, OURS: with_tokens}, goals),
    ]
