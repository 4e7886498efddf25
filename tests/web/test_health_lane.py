"""Who is answered while everybody else has to wait."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from harness import STANDIN, Server, running, wait_until
from raw import connect, get

STUCK = "nodes: [ r1 ]\nstandin: { up_hangs: true }\n"
CALLERS = 6
"""Of each kind: more than there is room for."""


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    """One with few threads."""
    with running(Server(tmp_path / "state", PROVIDER="clab", NETLAB=STANDIN, THREADS=request.param)) as server:
        yield server


@pytest.fixture
def active(server: Server) -> str:
    """Its active session."""
    return server.open_session()


@pytest.fixture
def crowd(server: Server, active: str) -> Iterator[list[Future[requests.Response]]]:
    """Everything that may take a thread for long takes as many as it gets."""
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(3 * CALLERS))
        stack.callback(server.end_session, active)
        slow = [stack.enter_context(connect(server)) for _ in range(CALLERS)]
        pool.submit(server.acquire, active, STUCK)
        wait_until(lambda: server.call("GET", "/lab/log", active).status_code == 200, "the lab boots")
        calls = [pool.submit(server.acquire, active, STUCK) for _ in range(CALLERS - 1)]
        for path in ("/lab/log?follow=1", "/lab?wait=60"):
            calls += [pool.submit(server.call, "GET", path, active) for _ in range(CALLERS)]
        for one in slow:
            one.sendall(get("/lab", f"X-Session-ID: {active}", "Content-Length: 1000", method="POST"))
        yield calls


@pytest.mark.parametrize("server", [4], indirect=True)
@pytest.mark.usefixtures("crowd")
def test_healthz_polls_and_heartbeats_wait_behind_nobody(server: Server, active: str) -> None:
    """All threads are taken; whoever watches the server, and whoever keeps a place in the queue, gets an answer."""
    wait_until(lambda: not answers(server), "all threads are taken", 5)
    assert server.call("GET", "/healthz").status_code == 204
    assert server.call("GET", f"/session/{active}?wait=1").json()["status"] == "active"
    assert server.call("POST", "/session/heartbeat", active).status_code == 204
    assert not answers(server)


@pytest.mark.parametrize("server", [8], indirect=True)
def test_what_takes_long_leaves_threads_for_the_rest(server: Server, crowd: list[Future[requests.Response]]) -> None:
    """Boots, streams, held calls and slow clients have rooms of their own, which are fewer than the threads."""
    # Left are two more acquires, a stream, a held call.
    wait_until(lambda: len(still_held(crowd)) <= 4, "whoever found no room was told so")
    assert server.call("GET", "/active-session", timeout=20).status_code == 200
    assert server.call("DELETE", f"/session/{server.open_session()}").status_code == 204


def still_held(calls: list[Future[requests.Response]]) -> list[Future[requests.Response]]:
    """Those that were not answered."""
    return [call for call in calls if not call.done()]


def answers(server: Server) -> bool:
    """Whether another call is served."""
    try:
        return server.call("GET", "/active-session", timeout=0.3).ok
    except requests.ReadTimeout:
        return False
