"""A session belongs to the token that opened it; to others it is a place in the queue with a name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from doors import Door
from harness import running

from remote_lab.callers import ADMIN
from remote_lab.client import RemoteLabClient, RemoteLabHTTPError

UNKNOWN = "24f01c2d-8f4e-4a5b-9c3d-1e2f3a4b5c6d"
URL = "https://ci.example.org/jobs/4711"
TOPOLOGY = "nodes: [ r1, r2 ]\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A server with one slot and tokens for three parties."""
    with running(Door(tmp_path_factory.mktemp("server") / "state")) as server:
        yield server


@dataclass
class Parties:
    """Who is there: `alice` is active, `bob` waits behind her, `eve` has nothing."""

    alice: str
    bob: str
    eve: str
    warden: str
    active: str
    waiting: str


@pytest.fixture(scope="module")
def tokens(server: Door) -> dict[str, str]:
    """Everybody's token."""
    return {name: server.make(name) for name in ("alice", "bob", "eve")} | {"warden": server.make("warden", ADMIN)}


@pytest.fixture
def parties(server: Door, tokens: dict[str, str]) -> Iterator[Parties]:
    """Two sessions in the queue."""
    active = server.open_for(tokens["alice"], purpose="nightly", ci_job_url=URL, ci_job_id="4711")
    waiting = server.open_for(tokens["bob"], purpose="debugging", ci_job_id="4711")
    yield Parties(**tokens, active=active, waiting=waiting)
    for session_id in (waiting, active):
        server.end_session(session_id)


CALLS = [
    ("GET", "/session/{}"),
    ("GET", "/session/{}?wait=1"),
    ("POST", "/session/{}/extend"),
    ("DELETE", "/session/{}"),
    ("POST", "/session/heartbeat"),
    ("GET", "/lab"),
    ("POST", "/lab"),
    ("DELETE", "/lab"),
    ("GET", "/lab/devices"),
    ("GET", "/lab/log"),
    ("GET", "/lab/ssh-key"),
    ("GET", "/lab/state"),
    ("POST", "/lab/release"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_a_strangers_session_is_as_one_that_never_was(server: Door, parties: Parties, method: str, path: str) -> None:
    """Whether it is active, waits, or has ended: the answers differ in the id that was asked for alone."""

    def told(session_id: str) -> tuple[int, Any]:
        arguments = {"json": {"lease_seconds": 60}} if path.endswith("extend") else {}
        header = session_id if "{}" not in path else None
        response = server.call(method, path.format(session_id), header, token=parties.eve, **arguments)
        return response.status_code, {**response.json(), "detail": response.json()["detail"].replace(session_id, "ID")}

    ended = server.open_for(parties.bob)
    server.end_session(ended)
    unknown = told(UNKNOWN)
    assert unknown[0] == 404
    assert unknown[1]["code"] == "session_not_found"
    assert [told(one) for one in (parties.active, parties.waiting, ended)] == [unknown] * 3


def test_everybody_sees_the_queue_and_nobodys_id(server: Door, parties: Parties) -> None:
    """Names, purposes and positions; what is one's own is marked."""
    expected = [
        {"position": 0, "status": "active", "token": "alice", "purpose": "nightly", "yours": False},
        {"position": 1, "status": "waiting", "token": "bob", "purpose": "debugging", "yours": True},
    ]
    assert server.call("GET", "/queue", token=parties.bob).json() == expected
    assert [place["yours"] for place in server.call("GET", "/queue", token=parties.alice).json()] == [True, False]
    assert [place["yours"] for place in server.call("GET", "/queue", token=parties.eve).json()] == [False, False]


def test_who_waits_learns_who_is_active_and_not_where_their_job_is(server: Door, parties: Parties) -> None:
    """The name and the purpose are for all, the URL of the job for its owner and for admins."""
    [seen] = server.call("GET", f"/session/{parties.waiting}", token=parties.bob).json()["held_by"]
    assert (seen["token"], seen["purpose"], seen["ci_job_url"]) == ("alice", "nightly", None)
    [seen] = server.call("GET", f"/session/{parties.waiting}", token=parties.warden).json()["held_by"]
    assert seen["ci_job_url"] == URL


def test_the_head_of_the_queue_is_told_to_its_owner(server: Door, parties: Parties) -> None:
    """And to admins; others hear that it is somebody else's."""
    for token in (parties.alice, parties.warden):
        assert server.call("GET", "/active-session", token=token).json()["session_id"] == parties.active
    refused = server.call("GET", "/active-session", token=parties.bob)
    assert (refused.status_code, refused.json()["code"]) == (404, "no_active_session")
    assert "GET /queue" in refused.json()["detail"]


def test_a_clean_up_step_ends_its_own_sessions_alone(server: Door, parties: Parties) -> None:
    """Two parties may name their jobs alike."""
    assert server.call("DELETE", "/session?ci_job=4711", token=parties.eve).json() == {"ended": 0}
    assert server.call("DELETE", "/session?ci_job=4711", token=parties.bob).json() == {"ended": 1}
    assert server.call("GET", f"/session/{parties.active}", token=parties.alice).json()["status"] == "active"
    assert server.call("DELETE", "/session?ci_job=4711", token=parties.warden).json() == {"ended": 1}


def test_an_admin_ends_anybodys_session_and_its_owner_hears_of_it(server: Door, parties: Parties) -> None:
    """With the name of whoever did it."""
    assert server.call("DELETE", f"/session/{parties.active}", token=parties.warden).status_code == 204
    gone = server.call("GET", f"/session/{parties.active}", token=parties.alice)
    assert (gone.status_code, "warden" in gone.json()["reason"]) == (404, True)


def test_a_client_with_a_token_runs_a_lab(server: Door, tokens: dict[str, str], tmp_path: Path) -> None:
    """By argument or as the password of the URL; a second one of the same token joins, one of another does not."""
    topology = tmp_path / "demo.yml"
    topology.write_text(TOPOLOGY)
    with RemoteLabClient(server.url, token=tokens["alice"]) as client:
        assert [device.name for device in client.acquire(topology, True)] == ["r1", "r2"]
        url = server.url.replace("//", f"//ci:{tokens['alice']}@")
        with RemoteLabClient(url, session_id=client.session_id) as second:
            assert [device.name for device in second.devices()] == ["r1", "r2"]
        with pytest.raises(RemoteLabHTTPError, match="session_not_found"):
            RemoteLabClient(server.url, token=tokens["eve"], session_id=client.session_id)


def test_a_client_without_a_token_is_told_how_to_give_one(server: Door) -> None:
    """In the words of the server."""
    with pytest.raises(RemoteLabHTTPError, match=r"401 token_required: .*REMOTE_LAB_TOKEN") as refused:
        RemoteLabClient(server.url)
    assert refused.value.code == "token_required"


def test_sessions_of_an_open_server_are_nobodys_when_tokens_come(tmp_path: Path) -> None:
    """Only admins get at them then; who opens again by --auth=open gets at all."""
    server = Door(tmp_path / "state", AUTH="open")
    token = server.make("alice")
    try:
        server.start()
        session_id = server.open_for("")
        assert server.call("GET", "/queue", token="").json()[0]["yours"] is True
        server.terminate()
        server.settings["AUTH"] = "auto"
        server.start()
        assert server.call("GET", f"/session/{session_id}", token=token).status_code == 404
        assert server.call("GET", f"/session/{session_id}").json()["status"] == "active"
        server.end_session(session_id)
    finally:
        server.terminate()
