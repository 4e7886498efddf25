"""What each use case costs in calls of netlab: none that the situation does not need."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import STANDIN, Server, running, wait_until

from remote_lab.client import RemoteLabClient

ONE, OTHER = "nodes: [ r1 ]\n", "nodes: [ r1, r2 ]\n"
UP = ["up", "inspect"]


class Netlab:
    """What a server has asked of the stand-in."""

    def __init__(self, calls: Path) -> None:
        self._calls = calls
        self._seen = 0

    def asked(self) -> list[str]:
        """The commands since this was asked last."""
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        new, self._seen = lines[self._seen :], len(lines)
        return [json.loads(line)["argv"][0] for line in new]


@pytest.fixture
def netlab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Netlab:
    monkeypatch.setenv("STANDIN_CALLS", str(tmp_path / "calls"))
    return Netlab(tmp_path / "calls")


@pytest.fixture
def server(tmp_path: Path, netlab: Netlab) -> Iterator[Server]:
    with running(Server(tmp_path / "state", PROVIDER="clab", NETLAB=STANDIN)) as server:
        yield server


def test_the_acquire_table_in_calls_of_netlab(server: Server, netlab: Netlab) -> None:
    """Row by row: a boot asks twice, a teardown once, and whoever shares a lab nothing."""
    session_id = server.open_session()

    def acquire(topology: str, *, reuse: bool = True) -> tuple[int, list[str]]:
        return server.acquire(session_id, topology, reuse=reuse).status_code, netlab.asked()

    def release(times: int) -> None:
        for _ in range(times):
            assert server.call("POST", "/lab/release", session_id).status_code == 204

    assert acquire(ONE) == (200, UP)
    assert acquire(ONE) == (200, [])
    assert acquire(ONE, reuse=False) == (423, [])
    assert acquire(OTHER) == (423, [])
    release(3)
    assert acquire(ONE) == (200, [])
    release(1)
    assert acquire(ONE, reuse=False) == (200, ["down", *UP])
    release(1)
    assert acquire(OTHER) == (200, ["down", *UP])
    for path in ("/lab/devices", "/debug/health", f"/session/{session_id}", "/lab/log"):
        assert server.call("GET", path, session_id).status_code == 200
    release(1)
    assert netlab.asked() == []
    # Netlab's own word on a lab starts a process: it is asked once for all who look within some seconds.
    first = server.call("GET", "/lab", session_id).json()
    assert server.call("GET", "/lab", session_id).json() == first
    assert netlab.asked() == ["status"]
    assert server.call("DELETE", "/lab", session_id).status_code == 202
    wait_until(lambda: not server.call("GET", "/debug/health").json()["labs"], "the lab is down")
    assert server.call("DELETE", "/lab", session_id).status_code == 204
    server.end_session(session_id)
    assert netlab.asked() == ["down"]


def test_an_acquire_of_the_client_in_calls_of_netlab(server: Server, netlab: Netlab, tmp_path: Path) -> None:
    """It follows its boot, and has the devices when netlab has said what they are: nothing else is asked for that."""
    topology = tmp_path / "demo.yml"
    topology.write_text(ONE)
    with RemoteLabClient(server.url) as client:
        assert [device.name for device in client.acquire(topology, reuse=True)] == ["r1"]
        assert netlab.asked() == UP
        held = server.call("GET", "/lab?wait=0.001", client.session_id).json()
        assert (held["running"], held["netlab_status"], netlab.asked()) == (True, None, [])
        said = server.call("GET", "/lab", client.session_id).json()["netlab_status"]
        held = server.call("GET", "/lab?wait=0.001", client.session_id).json()
        assert (held["netlab_status"], netlab.asked()) == (said, ["status"])
