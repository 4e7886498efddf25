"""h. What the server takes when nobody is there, and what those cost who wait and are held."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.memory import family, pss_kib, rss_kib
from bench.options import Options
from bench.pods import can_run_labs
from bench.report import OURS, Report, Row
from bench.targets import Target, ours, roots

SETTLE_SECONDS = 1.0
READY_SECONDS = 5.0
"""Until a sandbox is ready that is kept for the next boot."""
HOLD_SECONDS = 20


def measure(report: Report, options: Options, folder: Path, _peer_python: str | None) -> None:
    """One tree after the other."""
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


def _idle_with_sandbox(folder: Path) -> list[Row]:
    """What a server of real labs keeps ready is memory as well, though nobody has asked yet."""
    if not can_run_labs():
        return []
    with ours(folder, real_labs=True) as target:
        time.sleep(READY_SECONDS)
        total = sum(pss_kib(pid) for pid in family(target.pid)) / 1024
    return [Row("h", "idle memory with real labs, PSS of the server and all below it", "MiB", {OURS: [total]})]


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
