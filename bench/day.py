"""h. What the server takes when nobody is there, what a held request costs, and what a day of traffic leaves behind."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.memory import family, open_files, processor_seconds, pss_kib, rss_kib
from bench.options import Options
from bench.pods import can_run_labs
from bench.report import OURS, Goal, Report, Row
from bench.targets import Target, ours, roots

KEEPING: dict[str, Any] = {"HISTORY_DAYS": 0}
"""Settings that shorten what is kept, so that a day's end shows in minutes."""
MEMORY = Path("/dev/shm")
SLOTS = 4
SETTLE_SECONDS = 1.0
READY_SECONDS = 5.0
"""Until a sandbox is ready that is kept for the next boot."""
FLAT_SESSIONS = 30_000
"""With fewer, tables still fill up to their bounds."""
HOLD_SECONDS = 20


def measure(report: Report, options: Options, folder: Path, _peer_python: str | None) -> None:
    """One tree after the other: the day takes all the machine there is."""
    idle: dict[str, list[float]] = {}
    shared: dict[str, list[float]] = {}
    for tree in roots(options):
        with ours(folder, tree) as target:
            time.sleep(SETTLE_SECONDS)
            idle[target.name] = [(rss_kib(target.pid) + rss_kib(target.worker)) / 1024]
            shared[target.name] = [(pss_kib(target.pid) + pss_kib(target.worker)) / 1024]
            held, kib = _hold(target, options)
        report.add([
            Row("h", f"requests held at the same time, of {options.held} that ask", "", {target.name: [held]}),
            Row("h", "memory per held request", "KiB", {target.name: [kib]}),
        ])  # fmt: skip
    report.add(_idle_with_sandbox(folder))
    report.add([
        Row("h", "idle memory, RSS of both processes", "MiB", idle, (), "idle"),
        Row("h", "idle memory, PSS of both processes", "MiB", shared),
    ])  # fmt: skip
    with _in_memory(folder) as quick, ours(quick, SLOTS=SLOTS, **KEEPING) as target:
        report.add(_fast_motion(report, target, options))


def _idle_with_sandbox(folder: Path) -> list[Row]:
    """What a server of real labs keeps ready is memory as well, though nobody has asked yet."""
    if not can_run_labs():
        return []
    with ours(folder, real_labs=True) as target:
        time.sleep(READY_SECONDS)
        total = sum(pss_kib(pid) for pid in family(target.pid)) / 1024
    return [Row("h", "idle memory with real labs, PSS of the server and all below it", "MiB", {OURS: [total]})]


@contextmanager
def _in_memory(folder: Path) -> Iterator[Path]:
    """A folder without a disk where there is one: a day is about what it leaves, not about how fast a disk is."""
    quick = MEMORY if os.access(MEMORY, os.W_OK) else folder
    with tempfile.TemporaryDirectory(prefix="rlab-bench-", dir=quick) as name:
        yield Path(name)


def _hold(target: Target, options: Options) -> tuple[float, float]:
    """Let many ask to be held; returns how many are after a while, and what each of these costs in memory."""
    waiting = [target.open_session() for _ in range(options.held + 1)][1:]
    for session_id in waiting:
        target.call("GET", f"/session/{session_id}")
    before_kib = rss_kib(target.worker)
    with ExitStack() as stack:
        connections = [stack.enter_context(_asking(target, session_id)) for session_id in waiting]
        time.sleep(SETTLE_SECONDS)
        held = sum(not _has_answer(connection) for connection in connections)
        return held, (rss_kib(target.worker) - before_kib) / held if held else 0.0


@contextmanager
def _asking(target: Target, session_id: str) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", int(target.url.rpartition(":")[2]))) as connection:
        connection.sendall(f"GET /session/{session_id}?wait={HOLD_SECONDS} HTTP/1.1\r\nHost: lab\r\n\r\n".encode())
        yield connection


def _has_answer(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


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
    """Flat is what does not grow after the first step: the tables have their bounds by then."""
    first, last = state[0], state[-1]
    total = f"{last['sessions']:,} sessions".replace(",", " ")
    rate = last["sessions"] / sum(one["seconds"] for one in state)
    used = (
        [1000 * (last["processor"] - first["processor"]) / (last["sessions"] - first["sessions"])]
        if last is not first
        else []
    )
    rows = [Row("h", "processor time of the server per session", "ms", {OURS: used})] if used else []
    rows += [Row("h", f"{total} through the queue, in memory instead of on disk", "1/s", {OURS: [rate]})]
    goals = (Goal(1.1),) if last["sessions"] >= FLAT_SESSIONS else ()
    for key, unit in (("RSS", "MiB"), ("database and log", "MiB"), ("open files", "")):
        shown = [one[key] for one in state]
        rows.append(Row("h", f"{key} at each step of {total}", unit, {OURS: shown}))
        rows.append(Row("h", f"{key}, last step to first", "ratio", {OURS: [last[key] / first[key]]}, goals))
    return rows


def _weigh(target: Target) -> dict[str, float]:
    database = sum(path.stat().st_size for path in target.state_dir.glob("remote-lab.sqlite3*"))
    return {
        "RSS": rss_kib(target.worker) / 1024,
        "database and log": database / 2**20,
        "processor": processor_seconds(target.worker),
        "open files": float(open_files(target.worker)),
    }
