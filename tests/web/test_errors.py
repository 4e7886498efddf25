"""Every error is JSON with a detail and a code."""

from __future__ import annotations

import pytest
from harness import Server


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("PUT", "/session", 405, "method_not_allowed"),
        ("GET", "/session", 405, "method_not_allowed"),
        ("DELETE", "/session/nobody", 404, "session_not_found"),
        ("GET", "/session/nobody", 404, "session_not_found"),
        ("GET", "/active-session", 404, "no_active_session"),
    ],
)
def test_errors_are_json(server: Server, method: str, path: str, status: int, code: str) -> None:
    """Never a page for people, also for what the framework refuses."""
    response = server.call(method, path)
    assert (status, code) == (response.status_code, response.json()["code"])
    assert response.headers["Content-Type"] == "application/json"
    assert response.json()["detail"]


def test_a_refused_method_says_which_are_allowed(server: Server) -> None:
    """As HTTP wants it."""
    assert "POST" in server.call("PUT", "/session").headers["Allow"]


def test_a_trailing_slash_changes_nothing(server: Server) -> None:
    """A POST stays a POST."""
    response = server.call("POST", "/session/", allow_redirects=False)
    assert response.status_code == 201
    session_id = response.json()["session_id"]
    assert server.call("POST", "/session/heartbeat/", session_id, allow_redirects=False).status_code == 204
    assert server.call("DELETE", f"/session/{session_id}/", allow_redirects=False).status_code == 204


def test_a_session_ended_twice_is_404_with_the_reason(server: Server) -> None:
    """The second DELETE tells what the first did."""
    session_id = server.open_session()
    assert server.call("DELETE", f"/session/{session_id}").status_code == 204
    response = server.call("DELETE", f"/session/{session_id}")
    assert response.status_code == 404
    assert "its owner ended it" in response.json()["detail"]
