"""POST /session with the lab that will be wanted: what it takes, what it answers, and a server that is killed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from harness import STANDIN, Server, list_labs, running, wait_until

ONE, TWO = "nodes: [ r1 ]\n", "nodes: [ r1, r2 ]\n"
HANGS = "nodes: [ r1 ]\nstandin: { up_hangs: true }\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that boots a lab ahead."""
    state_dir = tmp_path_factory.mktemp("server") / "state"
    settings = {"PROVIDER": "clab", "NETLAB": STANDIN, "AHEAD": 1, "MAX_UPLOAD_BYTES": 100_000, "TEARDOWN_SECONDS": 2}
    with running(Server(state_dir, **settings)) as server:
        yield server


@pytest.fixture
def holder(server: Server) -> Iterator[str]:
    """An active session, which everybody else waits for; afterwards the queue is empty."""
    session_id = server.open_session()
    yield session_id
    while (head := server.call("GET", "/active-session")).status_code == 200:
        server.end_session(head.json()["session_id"])


def bring(server: Server, text: str, name: str = "demo.yml", **fields: str) -> requests.Response:
    """POST /session with a topology."""
    return server.call("POST", "/session", files={"topology": (name, text)}, data=fields)


def labs(server: Server) -> list[tuple[int, str]]:
    found: list[dict[str, Any]] = server.call("GET", "/debug/health").json()["labs"]
    return [(lab["slot"], lab["state"]) for lab in found]


def queue_length(server: Server) -> int:
    length: int = server.call("GET", "/debug/health").json()["queue_length"]
    return length


def test_the_lab_is_up_when_its_owner_has_their_turn(server: Server, holder: str) -> None:
    """The answer says its identity; extra files and what a session says of itself come along."""
    extra = ("extra_files", ("configs/r1.j2", "hostname r1\n"))
    answer = server.call(
        "POST", "/session", files=[("topology", ("demo.yml", TWO)), extra], data={"purpose": "nightly"}
    )
    assert (answer.status_code, answer.json()["position"], len(answer.json()["identity"])) == (201, 1, 64)
    assert server.call("GET", "/queue").json()[1]["purpose"] == "nightly"
    wait_until(lambda: labs(server) == [(2, "running")], "it has booted")
    [lab_id] = list_labs(server.state_dir)
    assert (server.state_dir / "labs" / lab_id / "lab" / "configs" / "r1.j2").read_text() == "hostname r1\n"
    server.end_session(holder)
    session_id = answer.json()["session_id"]
    seen = server.call("GET", "/lab", session_id).json()
    assert (seen["running"], seen["ref_count"], seen["identity"]) == (True, 0, answer.json()["identity"])
    got = server.acquire(session_id, TWO, reuse=False, **{"configs/r1.j2": "hostname r1\n"})
    assert (got.status_code, got.json()["reused"]) == (200, False)
    assert list_labs(server.state_dir) == [lab_id]


def test_an_earlier_upload_by_its_identity(server: Server, holder: str) -> None:
    """As JSON or as a form."""
    identity = hashlib.sha256(ONE.encode()).hexdigest()
    first = bring(server, ONE).json()
    assert first["identity"] == identity
    server.end_session(first["session_id"])
    again = server.call("POST", "/session", json={"identity": identity})
    assert (again.status_code, again.json()["identity"]) == (201, identity)
    wait_until(lambda: labs(server) == [(2, "running")], "it has booted")
    form = server.call("POST", "/session", files={"identity": (None, identity)})
    assert (form.status_code, form.json()["identity"]) == (201, identity)
    assert holder != again.json()["session_id"]


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"json": {"identity": "0" * 64}}, 404, "upload_not_found"),
        ({"json": {"identity": "0" * 64 + "\n"}}, 422, "validation_failed"),
        ({"json": {"identity": "A" * 64}}, 422, "validation_failed"),
        ({"files": {"extra_files": ("r1.j2", "x")}}, 422, "validation_failed"),
        ({"files": {"topology": (None, "nodes: [ r1 ]")}}, 422, "validation_failed"),
        ({"files": {"topology": ("a.yml", ONE)}, "data": {"identity": "0" * 64}}, 422, "validation_failed"),
        ({"files": {"topology": ("a.yml", ONE)}, "data": {"reuse": "true"}}, 422, "validation_failed"),
        ({"files": [("topology", ("a.yml", ONE))] * 2}, 400, "upload_malformed"),
        ({"files": {"topology": ("a.yml", "nodes: [")}}, 400, "topology_malformed"),
        ({"files": {"topology": ("a.txt", ONE)}}, 400, "topology_name_invalid"),
        ({"files": {"topology": ("a.yml", ONE + "#" * 100_000)}}, 413, "upload_too_large"),
    ],
)
def test_what_cannot_be_a_lab_opens_no_session(
    server: Server, request_: dict[str, Any], status: int, code: str
) -> None:
    """By the rules of POST /lab; nothing of it stays on disk."""
    answer = server.call("POST", "/session", **request_)
    assert (answer.status_code, answer.json()["code"], queue_length(server)) == (status, code, 0)
    kept = {path.parents[1] for path in server.state_dir.glob("uploads/*/lab/*")}
    assert all((path / "lab" / "demo.yml").exists() for path in kept)


def test_killed_in_the_middle_of_a_boot_ahead(server: Server, holder: str) -> None:
    """What is left of it is cleaned up, nobody loses their place, and the acquire boots."""
    session_id = bring(server, HANGS).json()["session_id"]
    wait_until(lambda: labs(server) == [(2, "starting")], "it boots")
    server.kill()
    server.start()
    wait_until(lambda: labs(server) == [], "nothing is left of it")
    assert (server.status(holder), server.status(session_id)) == (("active", 0), ("waiting", 1))
    server.end_session(holder)
    assert server.acquire(session_id, ONE).json()["reused"] is False
