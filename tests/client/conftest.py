from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import STANDIN, Server, running

from remote_lab.client import RemoteLabClient, wire

from .fake_peer import FakePeer

OURS = (
    *("URL", "TOKEN", "REQUEST_TIMEOUT", "SESSION_TIMEOUT", "ACQUISITION_TIMEOUT"),
    *("PURPOSE", "CI_JOB", "SESSION_ID"),
)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No lab host, timeout or proxy of the machine that runs the tests; and retries that don't pause."""
    told = ("CI_", "BUILD_", "GITHUB_", "GITLAB_", "JENKINS_")
    for name in [name for name in os.environ if name.startswith(told)]:
        monkeypatch.delenv(name)
    for name in OURS:
        monkeypatch.delenv(f"REMOTE_LAB_{name}", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(wire, "RETRY_BACKOFF_FACTOR", 0)


@pytest.fixture
def peer() -> Iterator[FakePeer]:
    peer = FakePeer()
    yield peer
    peer.stop()


@pytest.fixture
def connect(peer: FakePeer) -> Iterator[Callable[..., RemoteLabClient]]:
    """Makes clients of the peer that look at it often and send no heartbeat unless told, and closes them."""
    clients: list[RemoteLabClient] = []

    def connect(**arguments: Any) -> RemoteLabClient:
        defaults: dict[str, Any] = {"base_url": peer.url, "poll_seconds": 0.01, "heartbeat": None}
        clients.append(RemoteLabClient(**(defaults | arguments)))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server with a stand-in for netlab; each test leaves its queue empty."""
    state_dir = tmp_path_factory.mktemp("server") / "state"
    with running(Server(state_dir, PROVIDER="clab", NETLAB=STANDIN, REAPER_SECONDS=0.2)) as server:
        yield server


@pytest.fixture
def join_server(server: Server) -> Iterator[Callable[..., RemoteLabClient]]:
    """Makes clients of the real server, and closes them."""
    server.wait_quiet()
    clients: list[RemoteLabClient] = []

    def join_server(**arguments: Any) -> RemoteLabClient:
        defaults: dict[str, Any] = {"base_url": server.url, "poll_seconds": 0.2, "heartbeat": None}
        defaults |= {"session_timeout": 20, "lab_acquisition_timeout": 20}
        clients.append(RemoteLabClient(**(defaults | arguments)))
        return clients[-1]

    yield join_server
    for client in clients:
        client.close()


@pytest.fixture
def topology(tmp_path: Path) -> Path:
    path = tmp_path / "topologies" / "demo.yml"
    path.parent.mkdir()
    path.write_bytes(b"nodes: [r1]\n")
    return path
