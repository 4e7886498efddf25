"""The end of sessions over HTTP: one by one with a reason, or all that a CI job left."""

from __future__ import annotations

from harness import Server

JOB = {"ci_job_id": "build 4711/e2e [3.12]", "ci_job_url": "https://ci.example.org/jobs/4711"}


def open_as(server: Server, **wish: object) -> str:
    """Enter the queue with a wish."""
    response = server.call("POST", "/session", json=wish)
    assert response.status_code == 201, response.text
    return str(response.json()["session_id"])


def end_job(server: Server, name: str) -> int:
    """What a clean-up step does; returns how many sessions ended."""
    response = server.call("DELETE", "/session", params={"ci_job": name})
    assert response.status_code == 200, response.text
    return int(response.json()["ended"])


def test_a_clean_up_step_ends_what_its_job_left(server: Server) -> None:
    """Whatever state it is in, as often as it is asked; the sessions of others stay, and the owner is told why."""
    active, waiting = open_as(server, **JOB), open_as(server, **JOB)
    other = open_as(server, purpose="nightly")
    assert server.status(other) == ("waiting", 2)
    assert (end_job(server, JOB["ci_job_id"]), end_job(server, JOB["ci_job_id"])) == (2, 0)
    assert server.status(other) == ("active", 0)
    for session_id in (active, waiting):
        gone = server.call("GET", f"/session/{session_id}")
        assert (gone.status_code, gone.json()["reason"]) == (404, "its CI job gave it back")
    server.end_session(other)


def test_a_job_is_known_by_its_url_as_well(server: Server) -> None:
    """Whatever of the two the job has said of itself."""
    open_as(server, **JOB)
    open_as(server, ci_job_url=JOB["ci_job_url"])
    assert end_job(server, JOB["ci_job_url"]) == 2


def test_a_lab_of_an_ended_job_goes_down(server: Server) -> None:
    """The slot is free for the next when the call has answered and the lab is down."""
    session_id = open_as(server, **JOB)
    server.wait_active(session_id)
    assert server.acquire(session_id, "nodes: [ r1 ]\n").status_code == 200
    assert end_job(server, JOB["ci_job_id"]) == 1
    assert server.call("GET", "/lab", session_id).status_code == 404
    server.wait_quiet()


def test_who_ends_a_session_may_say_why(server: Server) -> None:
    """Whoever asks for it later is told; without a reason it was the owner."""
    reasons = []
    for query in ("", "?reason=pytest%20was%20interrupted"):
        session_id = server.open_session()
        assert server.call("DELETE", f"/session/{session_id}{query}").status_code == 204
        reasons.append(server.call("GET", f"/session/{session_id}").json()["reason"])
    assert reasons == ["its owner ended it", "pytest was interrupted"]


def test_who_holds_a_lab_sees_who_waits(server: Server, session_id: str) -> None:
    """So that it can yield; those who wait count themselves."""
    assert server.call("GET", f"/session/{session_id}").json()["waiting"] == 0
    second = server.open_session()
    seen = [server.call("GET", f"/session/{one}").json()["waiting"] for one in (session_id, second)]
    server.end_session(second)
    assert seen == [1, 1]
