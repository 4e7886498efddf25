"""Uploads to a server whose labs no sandbox holds, by callers who are not trusted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness import STANDIN, Server, list_labs, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """It trusts nobody."""
    state_dir = tmp_path_factory.mktemp("server") / "state"
    with running(Server(state_dir, PROVIDER="clab", NETLAB=STANDIN, TRUST_UPLOADS=0)) as server:
        yield server


def test_a_program_is_refused_with_its_places(server: Server, session_id: str) -> None:
    """403, with what was found and where, and nothing was started or kept."""
    topology = "nodes: [ r1 ]\nplugin: [ evil ]\nlinks:\n- { r1: , bridge: docker0 }\n"
    answer = server.acquire(session_id, topology, **{"evil.py": "import os"})
    body = answer.json()
    assert (answer.status_code, body["code"]) == (403, "topology_not_allowed")
    assert [(one["line"], one["column"]) for one in body["findings"]] == [(2, 11), (4, 11), (1, 1)]
    assert "line 2, column 11: plugin has the value 'evil'" in body["detail"]
    assert "'trusted'" in body["detail"]
    assert list_labs(server.state_dir) == []
    assert not list(server.state_dir.rglob("standin-calls.jsonl"))


def test_plain_data_boots_as_it_was_checked(server: Server, session_id: str) -> None:
    """netlab gets the same in the plainest YAML; the lab is known by what was sent."""
    topology = "defaults: &d { device: frr }\nnodes: { r1: { <<: *d }, r2: { role: 'router' } }  # comment\n"
    assert server.acquire(session_id, topology).status_code == 200
    [lab_id] = list_labs(server.state_dir)
    stored = (server.state_dir / "labs" / lab_id / "lab" / "demo.yml").read_text()
    assert ("comment" in stored, "<<" in stored, "  r1:\n    device: frr\n" in stored) == (False, False, True)
    assert server.acquire(session_id, topology).json()["reused"] is True
