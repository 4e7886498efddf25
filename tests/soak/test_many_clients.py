"""Hundreds of clients that open, wait, vanish and come back: the queue keeps its order and the server its breath."""

from __future__ import annotations

import collections
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from census import Census
from crowd import gather, percentile
from effort import LONG, choose_seed
from harness import STANDIN, Server, running, wait_until

CLIENTS, CROWDS = (300, 3) if LONG else (60, 1)
HEALTH_MILLISECONDS = 1000
SETTINGS = {"REAPER_SECONDS": 0.3, "WAITING_SECONDS": 30, "ACTIVE_SECONDS": 9}


@pytest.mark.timeout(1200 if LONG else 240)
def test_the_queue_is_fifo_for_a_crowd(tmp_path: Path) -> None:
    """By promotion; nobody moves back, nobody who stays is lost, and /healthz has an answer all the time."""
    server = Server(tmp_path / "state", PROVIDER="clab", NETLAB=STANDIN, **SETTINGS)
    server.with_options("--log-level", "INFO")
    dice = random.Random(choose_seed())
    prober = Path(__file__).parent / "prober.py"
    ends: collections.Counter[str] = collections.Counter()
    refusals = 0
    began = time.monotonic()
    with running(server):
        command = [sys.executable, str(prober), "127.0.0.1", str(server.port)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as probe:
            for _ in range(CROWDS):
                crowd = gather(server, CLIENTS, dice)
                assert [member.problem for member in crowd if member.problem] == []
                assert all(member.positions == sorted(member.positions, reverse=True) for member in crowd)
                ends.update(member.end for member in crowd)
                refusals += sum(member.refusals for member in crowd)
            said, _ = probe.communicate("enough")
        wait_until(lambda: server.call("GET", "/debug/health").json()["queue_length"] == 0, "the queue is empty", 60)
        census = Census(server)
        assert census.overtaken() == []
        [(promoted,)] = census.query("SELECT count(*) FROM sessions WHERE activated_at IS NOT NULL")
    assert promoted >= ends["served"]
    assert ends.total() == CLIENTS * CROWDS
    assert ends["served"] > CLIENTS * CROWDS / 2
    answers = json.loads(said)
    assert {status for status, _ in answers} == {204}
    times = [milliseconds for _, milliseconds in answers]
    report = (
        f"{dict(ends)}, {refusals} refusals in {time.monotonic() - began:.0f} s; /healthz, {len(times)} calls: median "
        f"{percentile(times, 0.5):.0f} ms, p99 {percentile(times, 0.99):.0f} ms, worst {max(times):.0f} ms"
    )
    print(report)  # noqa: T201 - for who runs `make soak`
    assert not LONG or max(times) < HEALTH_MILLISECONDS, report
