from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from remote_lab.client import RemoteLabClient, wire

from .fake_peer import FakePeer


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No lab host, timeout or proxy of the machine that runs the tests; and retries that don't pause."""
    for name in ("URL", "REQUEST_TIMEOUT", "SESSION_TIMEOUT", "ACQUISITION_TIMEOUT"):
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
        defaults: dict[str, Any] = {"base_url": peer.url, "poll_seconds": 0.01, "heartbeat_seconds": None}
        clients.append(RemoteLabClient(**(defaults | arguments)))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def topology(tmp_path: Path) -> Path:
    path = tmp_path / "topologies" / "demo.yml"
    path.parent.mkdir()
    path.write_bytes(b"nodes: [r1]\n")
    return path
