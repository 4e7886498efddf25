"""A server that ends, in order or by force, and what the next one finds."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests
from harness import STANDIN, Server, list_labs, processes_named, ssh, wait_until

pytestmark = pytest.mark.lab


def state_on_disk(server: Server) -> list[tuple[Any, ...]]:
    """Queue, labs and references, without what a restart may change."""
    with (
        closing(sqlite3.connect(f"file:{server.state_dir}/remote-lab.sqlite3?mode=ro", uri=True)) as database,
        database,
    ):
        return [
            row
            for query in (
                "SELECT ticket, id, state, slot FROM sessions ORDER BY ticket",
                "SELECT id, session_id, slot, identity, state FROM labs WHERE state != 'stopped' ORDER BY id",
                "SELECT lab_id, session_id FROM lab_references ORDER BY id",
            )
            for row in database.execute(query)
        ]


def kill_arbiter_alone(server: Server) -> None:
    """The worker notices on its own, as when somebody kills the wrong process."""
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()


@pytest.mark.parametrize(
    "end", [Server.kill, kill_arbiter_alone, Server.terminate], ids=["kill -9", "kill -9 of the arbiter", "SIGTERM"]
)
def test_a_restart_brings_queue_lab_and_references_back(
    serve: Callable[..., Server], pair: Path, end: Callable[[Server], object]
) -> None:
    """A lab runs, two clients wait, the server goes and comes: same queue, same lab, and its devices answer."""
    server = serve()
    ids = [server.open_session() for _ in range(3)]
    devices = server.acquire(ids[0], pair).json()["devices"]
    server.acquire(ids[0], pair)
    before, uptime = state_on_disk(server), boot_time(devices)
    assert len(before) == 3 + 1 + 2

    end(server)
    server.start()

    assert state_on_disk(server) == before
    assert [server.status(one) for one in ids] == [("active", 0), ("waiting", 1), ("waiting", 2)]
    assert server.call("GET", "/lab/devices", ids[0]).json() == devices
    assert boot_time(devices) == uptime
    assert server.acquire(ids[0], pair).json()["reused"] is True
    server.end_session(ids[0])
    server.wait_active(ids[1])
    assert server.status(ids[2]) == ("waiting", 1)


def boot_time(devices: list[dict[str, Any]]) -> list[str]:
    """When the first process of each device began, in clock ticks: it changes when a device is started again."""
    return [ssh(device["raw"]["ansible_host"], "cut -d' ' -f22 /proc/1/stat") for device in devices]


def test_a_boot_that_died_with_its_server_is_cleaned_up(serve: Callable[..., Server], pair: Path) -> None:
    """The session keeps its place; the next acquire boots afresh."""
    server = serve()
    session_id = server.open_session()
    with ThreadPoolExecutor(1) as pool:
        cut_off = pool.submit(server.acquire, session_id, pair)
        wait_until(lambda: "Boot: start" in server.log.read_text(), "the boot is on its way")
        server.kill()
        assert isinstance(cut_off.exception(), requests.ConnectionError)
    server.start()
    assert server.status(session_id) == ("active", 0)
    assert server.acquire(session_id, pair).json()["reused"] is False
    assert len(list_labs(server.state_dir)) == 1


def test_a_lab_that_died_while_the_server_was_down_is_said_to_be_dead(serve: Callable[..., Server], pair: Path) -> None:
    """Nobody gets devices that are not there."""
    server = serve()
    session_id = server.open_session()
    server.acquire(session_id, pair)
    [lab_id] = list_labs(server.state_dir)
    server.kill()
    os.kill(pod_of(lab_id), signal.SIGKILL)
    server.start()
    assert server.call("GET", "/lab", session_id).json()["running"] is False
    assert "died: " in server.log.read_text()
    assert server.acquire(session_id, pair).json()["reused"] is False


def pod_of(lab_id: str) -> int:
    """The first process of a lab's sandbox, found as an operator would: by its command line."""
    [pod] = [pid for pid in processes_named(lab_id) if innermost_pid(pid) == "1"]
    return pod


def innermost_pid(pid: int) -> str:
    """A process's number in the pid namespace it lives in."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line for line in lines if line.startswith("NSpid")).split()[-1]


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_an_orderly_end_tells_who_waits_for_a_boot(serve: Callable[..., Server], sig: int) -> None:
    """The request is answered, the exit status is 0, and nothing of the boot is left."""
    server = serve(PROVIDER="clab", NETLAB=STANDIN)
    session_id = server.open_session()
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(server.acquire, session_id, "nodes: [ r1 ]\nstandin: { up_hangs: true }\n")
        wait_until(lambda: "Boot: create" in server.log.read_text(), "the boot is on its way")
        assert server.terminate(sig) == 0
        answer = told.result().json()
    assert answer["code"] == "lab_boot_cancelled"
    assert "the server is stopping" in answer["detail"]
    assert list_labs(server.state_dir) == []
    server.start()
    assert server.status(session_id) == ("active", 0)
