"""/healthz while everybody else has to wait."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from harness import STANDIN, Server, running, wait_until

STUCK = "nodes: [ r1 ]\nstandin: { up_hangs: true }\n"
THREADS = 4


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """One that has as few threads as it may."""
    with running(Server(tmp_path / "state", PROVIDER="clab", NETLAB=STANDIN, THREADS=THREADS)) as server:
        yield server


def test_healthz_waits_behind_nobody(server: Server) -> None:
    """All threads are taken by calls that are held, so others wait; whoever watches the server gets its answer."""
    first, second = server.open_session(), server.open_session()
    with ThreadPoolExecutor(THREADS) as pool:
        held = [pool.submit(server.acquire, first, STUCK) for _ in range(2)]
        wait_until(lambda: server.call("GET", "/lab/log", first).status_code == 200, "the lab boots")
        pool.submit(server.call, "GET", "/lab/log?follow=1", first)
        pool.submit(server.call, "GET", f"/session/{second}?wait=4")
        wait_until(lambda: not answers(server), "all threads are taken", 3)
        assert server.call("GET", "/healthz").status_code == 204
        assert not answers(server)
        server.end_session(first)
        assert {call.result().status_code for call in held} == {404}


def answers(server: Server) -> bool:
    """Whether another call is served."""
    try:
        return server.call("GET", "/active-session", timeout=0.3).ok
    except requests.ReadTimeout:
        return False
