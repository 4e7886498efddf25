"""The order of answers on calls that need a session, and what counts as a proof of life."""

from __future__ import annotations

import uuid

import pytest
from harness import Server

MISSING_HEADER = {"loc": ["header", "X-Session-ID"], "msg": "Field required", "type": "missing"}
MISSING_TOPOLOGY = {"loc": ["body", "topology"], "msg": "Field required", "type": "missing"}

LAB_CALLS = [
    ("POST", "/lab"),
    ("GET", "/lab"),
    ("GET", "/lab/devices"),
    ("POST", "/lab/release"),
    ("DELETE", "/lab"),
]


@pytest.mark.parametrize(("method", "path"), LAB_CALLS)
def test_a_missing_header_is_422(server: Server, method: str, path: str) -> None:
    """Named as clients know it."""
    response = server.call(method, path)
    assert (response.status_code, response.json()["code"]) == (422, "validation_failed")
    assert response.json()["detail"][0] == MISSING_HEADER


def test_a_missing_header_is_merged_with_what_else_is_wrong(server: Server) -> None:
    """One answer says it all."""
    answer = server.call("POST", "/lab", files={"reuse": (None, "perhaps")}).json()
    assert answer["detail"][0] == MISSING_HEADER
    assert sorted(item["loc"][1] for item in answer["detail"][1:]) == ["reuse", "topology"]
    answer = server.call("DELETE", "/lab?force=perhaps").json()
    assert [item["loc"] for item in answer["detail"]] == [["header", "X-Session-ID"], ["query", "force"]]


@pytest.mark.parametrize(("method", "path"), LAB_CALLS)
def test_an_unknown_session_is_404_before_anything_else(server: Server, method: str, path: str) -> None:
    """Also without the topology that POST /lab needs."""
    response = server.call(method, path, str(uuid.uuid4()))
    assert (response.status_code, response.json()["code"]) == (404, "session_not_found")


@pytest.mark.parametrize(("method", "path"), LAB_CALLS)
def test_a_waiting_session_is_423_before_anything_else(server: Server, waiting_id: str, method: str, path: str) -> None:
    """Also without the topology that POST /lab needs."""
    response = server.call(method, path, waiting_id)
    assert (response.status_code, response.json()["code"]) == (423, "session_waiting")


def test_the_routes_own_validation_comes_last(server: Server, session_id: str) -> None:
    """For an active session."""
    response = server.call("POST", "/lab", session_id)
    assert (response.status_code, response.json()["detail"]) == (422, [MISSING_TOPOLOGY])


def test_session_ids_are_compared_exactly_and_header_names_are_not(server: Server, session_id: str) -> None:
    """The header is HTTP's, the id is ours."""
    assert server.call("GET", "/lab", headers={"x-session-id": session_id}).status_code == 200
    assert server.call("GET", "/lab", session_id.upper()).status_code == 404


@pytest.mark.parametrize("word", ["true", "1", "YES", "On", "t", "y"])
def test_true_words(server: Server, session_id: str, word: str) -> None:
    """In any case; an unreferenced lab that is not there is nothing to do."""
    assert server.call("DELETE", f"/lab?force={word}", session_id).status_code == 204


@pytest.mark.parametrize("word", ["false", "0", "NO", "oFF", "f", "n"])
def test_false_words(server: Server, session_id: str, word: str) -> None:
    """In any case."""
    assert server.call("DELETE", f"/lab?force={word}", session_id).status_code == 204


@pytest.mark.parametrize("word", ["", "2", "yess", "null"])
def test_other_words_are_422(server: Server, session_id: str, word: str) -> None:
    """With the value in the sentence."""
    response = server.call("DELETE", f"/lab?force={word}", session_id)
    assert response.status_code == 422
    assert repr(word) in response.json()["detail"][0]["msg"]


def test_heartbeat(server: Server, session_id: str, waiting_id: str) -> None:
    """For active and waiting sessions alike."""
    assert [server.call("POST", "/session/heartbeat", one).status_code for one in (session_id, waiting_id)] == [
        204,
        204,
    ]
    assert server.call("POST", "/session/heartbeat").json()["detail"] == [MISSING_HEADER]
    assert server.call("POST", "/session/heartbeat", "nobody").status_code == 404
