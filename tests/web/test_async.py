"""Boots and turns that are waited for without holding a connection open for all of it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import takewhile

import pytest
import requests
from harness import Server, list_labs, wait_until

from remote_lab.core.manager import HELD_IN_FRONT

ASYNC = {"Prefer": "respond-async"}
SLOW = "nodes: [ r1 ]\nstandin: { up_seconds: 1 }\n"
ENDLESS = "nodes: [ r1 ]\nstandin: { up_hangs: true }\n"
FAILING = "nodes: [ r1 ]\nstandin: { up_seconds: 0.5, up_fails: true }\n"
PLAIN = "nodes: [ r1 ]\n"


def acquire_async(server: Server, session_id: str, topology: str, *, wait: str = "") -> requests.Response:
    files = [("topology", ("demo.yml", topology))]
    headers = {"Prefer": f"respond-async, wait={wait}"} if wait else ASYNC
    return server.call("POST", "/lab", session_id, files=files, headers=headers)


def lab(server: Server, session_id: str, wait: float = 0) -> dict[str, object]:
    answer: dict[str, object] = server.call("GET", f"/lab?wait={wait}", session_id).json()
    return answer


def follow_states(server: Server, session_id: str) -> Iterator[tuple[object, object]]:
    """State and phase, each time one of them has changed."""
    seen = None
    while True:
        answer = lab(server, session_id, wait=10)
        if (answer["state"], answer["phase"]) != seen:
            seen = (answer["state"], answer["phase"])
            yield seen


def test_an_async_boot_is_accepted_and_followed_to_its_end(server: Server, session_id: str) -> None:
    """202 at once, then GET /lab with wait shows each phase until the lab runs; one reference is held."""
    response = acquire_async(server, session_id, SLOW)
    assert (response.status_code, response.json()["state"]) == (202, "starting")
    assert response.headers["Preference-Applied"] == "respond-async"
    phases = [phase for _, phase in takewhile(lambda seen: seen[0] == "starting", follow_states(server, session_id))]
    assert phases[-1] == "devices"
    answer = lab(server, session_id)
    assert (answer["state"], answer["running"], answer["ref_count"]) == ("running", True, 1)
    assert server.acquire(session_id, SLOW).json()["reused"] is True


def test_an_async_acquire_of_a_running_lab_answers_with_its_devices(server: Server, session_id: str) -> None:
    """Nothing has to be waited for."""
    server.acquire(session_id, PLAIN)
    response = acquire_async(server, session_id, PLAIN)
    assert (response.status_code, response.json()["reused"]) == (200, True)


def test_an_async_acquire_replaces_an_idle_lab_behind_the_answer(server: Server, session_id: str) -> None:
    """Teardown and boot go on without anybody holding a connection."""
    server.acquire(session_id, PLAIN)
    server.call("POST", "/lab/release", session_id)
    assert acquire_async(server, session_id, SLOW).status_code == 202
    wait_until(
        lambda: lab(server, session_id)["topology"] == "demo.yml" and lab(server, session_id)["running"], "it runs"
    )
    assert server.acquire(session_id, SLOW).json()["reused"] is True
    assert len(list_labs(server.state_dir)) == 1


def test_an_async_acquire_that_cannot_be_is_refused_at_once(server: Server, session_id: str) -> None:
    """As without the preference."""
    server.acquire(session_id, PLAIN)
    assert acquire_async(server, session_id, SLOW).json()["code"] == "lab_busy"
    assert acquire_async(server, session_id, "- r1").json()["code"] == "topology_malformed"


def test_who_would_wait_for_an_async_boot_gets_the_devices(server: Server, session_id: str) -> None:
    """Of a lab that is up in time: in the first answer, with one reference."""
    response = acquire_async(server, session_id, SLOW, wait="10")
    assert (response.status_code, response.json()["reused"]) == (200, False)
    assert [device["name"] for device in response.json()["devices"]] == ["r1"]
    assert lab(server, session_id)["ref_count"] == 1


def test_who_would_wait_for_an_async_boot_gets_its_failure(server: Server, session_id: str) -> None:
    """As without the preference for 202."""
    response = acquire_async(server, session_id, FAILING, wait="10")
    assert response.json()["code"] == "lab_boot_failed"
    assert "told to fail in up" in response.json()["log_tail"]


def test_who_would_wait_waits_for_the_lab_before_as_well(server: Server, session_id: str) -> None:
    """An idle lab goes down, then theirs boots."""
    server.acquire(session_id, "nodes: [ r1 ]\nstandin: { down_seconds: 0.3 }\n")
    server.call("POST", "/lab/release", session_id)
    response = acquire_async(server, session_id, PLAIN, wait="10")
    assert (response.status_code, response.json()["reused"]) == (200, False)
    assert len(list_labs(server.state_dir)) == 1


@pytest.mark.parametrize("wait", ["0", "-1", "soon", "1.5", "9999999999", ""])
def test_an_async_boot_is_not_waited_for_longer_than_said(server: Server, session_id: str, wait: str) -> None:
    """What is no number of seconds counts as none."""
    assert acquire_async(server, session_id, ENDLESS, wait=wait).status_code == 202


def test_who_would_wait_where_there_is_no_room_is_not_refused(server: Server, session_id: str) -> None:
    """The answer is the 202 that they can live with."""
    acquire_async(server, session_id, ENDLESS)
    with ThreadPoolExecutor(8) as pool:
        held = [pool.submit(acquire_async, server, session_id, ENDLESS, wait="1") for _ in range(8)]
        assert {one.result().status_code for one in held} == {202}


def test_a_failed_boot_stays_to_be_seen(server: Server, session_id: str) -> None:
    """State, phase, reason and the end of the log, until the next boot."""
    assert acquire_async(server, session_id, FAILING).status_code == 202
    states = dict(takewhile(lambda seen: seen[0] != "failed", follow_states(server, session_id)))
    assert set(states) == {"starting"}
    answer = lab(server, session_id)
    assert (answer["running"], answer["ref_count"]) == (False, 0)
    assert "status 1" in str(answer["failure"])
    assert "told to fail in up" in str(answer["log_tail"])
    assert "told to fail in up" in server.call("GET", "/lab/log", session_id).text
    assert server.acquire(session_id, PLAIN).status_code == 200
    assert lab(server, session_id)["failure"] is None


def test_a_wait_without_a_change_ends_with_its_seconds(server: Server, session_id: str) -> None:
    """With the state as it is."""
    assert lab(server, session_id, wait=0.2)["state"] is None


def test_a_delete_wakes_who_waits_for_the_lab(server: Server, session_id: str) -> None:
    """And ends the boot at once."""
    acquire_async(server, session_id, ENDLESS)
    wait_until(lambda: lab(server, session_id)["phase"] == "create", "netlab is at work")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lab, server, session_id, 30)
        assert server.call("DELETE", "/lab", session_id).status_code == 202
        assert waiting.result()["state"] != "starting"
    wait_until(lambda: list_labs(server.state_dir) == [], "the boot has ended")


@contextmanager
def broken_off(server: Server, session_id: str, topology: str) -> Iterator[None]:
    """A POST /lab whose client hangs up in the middle of the boot."""
    request = requests.Request(
        "POST", f"{server.url}/lab", headers={"X-Session-ID": session_id}, files=[("topology", ("demo.yml", topology))]
    ).prepare()
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(f"POST /lab HTTP/1.1\r\nHost: lab\r\n{head}\r\n".encode() + bytes(request.body or b""))
        wait_until(lambda: lab(server, session_id)["state"] == "starting", "the boot has begun")
    yield


def test_a_client_whose_connection_broke_asks_again_and_joins_its_boot(server: Server, session_id: str) -> None:
    """One boot; what the broken call would have handed over it does not keep."""
    with broken_off(server, session_id, SLOW):
        answer = server.acquire(session_id, SLOW)
    assert answer.status_code == 200
    assert len(list_labs(server.state_dir)) == 1
    wait_until(lambda: lab(server, session_id)["ref_count"] == 1, "one reference is held")


def test_a_log_is_plain_text(server: Server, session_id: str) -> None:
    """What netlab printed; 404 before the first boot."""
    assert server.call("GET", "/lab/log", session_id).json()["code"] == "lab_not_found"
    server.acquire(session_id, PLAIN)
    response = server.call("GET", "/lab/log", session_id)
    assert response.headers["Content-Type"].startswith("text/plain")
    assert "Creating configuration files" in response.text


def events(response: requests.Response) -> list[tuple[str, str]]:
    """The events of a stream until its end, as (name, data); comments are left out."""
    found = []
    for block in response.content.decode().split("\n\n"):
        said = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if said:
            found.append((said.get("event", "line"), said["data"]))
    return found


def test_a_followed_log_ends_with_the_boot(server: Server, session_id: str) -> None:
    """Phases and lines as they come, then the state in which the lab is now."""
    acquire_async(server, session_id, SLOW)
    response = server.call("GET", "/lab/log?follow=1", session_id)
    assert response.headers["Content-Type"].startswith("text/event-stream")
    followed = events(response)
    assert ("line", "Creating configuration files") in followed
    assert ("phase", "create") in followed
    assert followed[-1] == ("end", "running")


def test_a_followed_log_goes_on_where_it_was(server: Server, session_id: str) -> None:
    """Last-Event-ID is the byte behind the last line that came."""
    server.acquire(session_id, PLAIN)
    whole = [data for kind, data in events(server.call("GET", "/lab/log?follow=1", session_id)) if kind == "line"]
    offset = len(whole[0]) + 1
    headers = {"Last-Event-ID": str(offset)}
    rest = events(server.call("GET", "/lab/log?follow=1", session_id, headers=headers))
    assert [data for kind, data in rest if kind == "line"] == whole[1:]


def test_streams_leave_room_for_the_others(server: Server, session_id: str) -> None:
    """One more than there is room for is told to come back; a place is free when its client hangs up."""
    acquire_async(server, session_id, ENDLESS)

    def follow() -> requests.Response:
        return requests.get(
            f"{server.url}/lab/log?follow=1", headers={"X-Session-ID": session_id}, stream=True, timeout=30
        )

    streams = [follow() for _ in range(4)]
    refused = follow()
    assert (refused.status_code, refused.json()["code"]) == (503, "server_busy")
    assert int(refused.headers["Retry-After"]) > 0
    assert server.call("GET", "/healthz").status_code == 204
    for stream in streams:
        stream.close()
    server.call("DELETE", "/lab", session_id)
    wait_until(lambda: follow().status_code != 503, "the places are free again")


@pytest.mark.parametrize("wait", ["-1", "soon", "nan", "inf", ""])
def test_a_wait_that_is_no_number_is_422(server: Server, session_id: str, wait: str) -> None:
    """With the value."""
    for path in ("/lab", f"/session/{session_id}"):
        response = server.call("GET", f"{path}?wait={wait}", session_id)
        assert (response.status_code, response.json()["detail"][0]["loc"]) == (422, ["query", "wait"])


def test_a_held_client_hears_at_once_that_it_is_its_turn(server: Server, session_id: str, waiting_id: str) -> None:
    """Without polling."""
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(server.call, "GET", f"/session/{waiting_id}?wait=30")
        wait_for_held(server, waiting_id)
        server.end_session(session_id)
        answer = held.result(10)
    assert (answer.json()["status"], answer.json()["position"]) == ("active", 0)
    assert "Retry-After" not in answer.headers


def wait_for_held(server: Server, session_id: str) -> None:
    """Give the other thread's request time to arrive: a look at the session itself comes after it."""
    for _ in range(3):
        server.call("GET", f"/session/{session_id}")
    time.sleep(0.1)


def test_a_held_client_hears_that_somebody_in_front_has_left(server: Server, session_id: str, waiting_id: str) -> None:
    """Its position has changed."""
    last = server.open_session()
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(server.call, "GET", f"/session/{last}?wait=30")
        wait_for_held(server, last)
        server.end_session(waiting_id)
        assert held.result(10).json()["position"] == 1
    server.end_session(last)


def test_a_held_client_hears_that_its_session_ended(server: Server, session_id: str, waiting_id: str) -> None:
    """404 with the reason."""
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(server.call, "GET", f"/session/{waiting_id}?wait=30")
        wait_for_held(server, waiting_id)
        server.end_session(waiting_id)
        answer = held.result(10)
    assert (answer.status_code, answer.json()["reason"]) == (404, "its owner ended it")


def test_an_active_session_is_never_held(server: Server, session_id: str) -> None:
    """Its turn is there."""
    assert server.call("GET", f"/session/{session_id}?wait=30", timeout=10).json()["status"] == "active"


def test_who_is_far_behind_is_told_when_to_ask_again(server: Server, session_id: str) -> None:
    """Instead of being held; nobody's turn comes sooner for being held far behind."""
    job = {"ci_job_id": "crowd"}
    behind = [server.call("POST", "/session", json=job).json()["session_id"] for _ in range(HELD_IN_FRONT + 1)]
    answer = server.call("GET", f"/session/{behind[-1]}?wait=30", timeout=10)
    assert answer.json()["position"] == HELD_IN_FRONT + 1
    assert int(answer.headers["Retry-After"]) > 0
    assert server.call("DELETE", "/session?ci_job=crowd").json() == {"ended": len(behind)}


@pytest.fixture
def open_with(server: Server) -> Iterator[Callable[..., requests.Response]]:
    """POST /session with a body; what it opens is ended."""
    opened: list[str] = []

    def call(**body: object) -> requests.Response:
        response = server.call("POST", "/session", json=body)
        if response.status_code == 201:
            opened.append(response.json()["session_id"])
        return response

    yield call
    for session_id in opened:
        server.end_session(session_id)


def test_who_waits_sees_what_the_lab_is_used_for(server: Server, open_with: Callable[..., requests.Response]) -> None:
    """The purpose and the CI job of the one in front, never its id."""
    first = open_with(purpose="nightly", ci_job_url="https://ci.example/jobs/7").json()["session_id"]
    second = open_with().json()["session_id"]
    answer = server.call("GET", f"/session/{second}").json()
    [holder] = answer["held_by"]
    assert (holder["purpose"], holder["ci_job_url"], holder["slot"]) == ("nightly", "https://ci.example/jobs/7", 1)
    assert first not in str(answer)
    assert server.call("GET", f"/session/{first}").json()["held_by"] == []


@pytest.mark.parametrize(
    "body",
    [
        {"purpose": ""},
        {"purpose": "x" * 201},
        {"purpose": "two\nlines"},
        {"ci_job_url": "javascript:alert(1)"},
        {"lease_seconds": -1},
        {"lease_seconds": "long"},
        {"lease_seconds": True},
        {"lease_seconds": 14401},
        {"lease_seconds": 0},
        {"purpse": "typo"},
    ],
)
def test_a_wish_that_cannot_be_is_422(open_with: Callable[..., requests.Response], body: dict[str, object]) -> None:
    """And nobody enters the queue for it."""
    assert open_with(**body).status_code == 422


def test_the_end_of_a_turn_is_estimated_from_those_before(server: Server) -> None:
    """Once a session of this server has ended, it knows how long they take."""
    server.end_session(server.open_session())
    session_id, waiting_id = server.open_session(), server.open_session()
    answer = server.call("GET", f"/session/{waiting_id}").json()
    assert answer["eta_seconds"] >= 0
    assert server.call("GET", f"/session/{session_id}").json()["eta_seconds"] == 0
    for one in (waiting_id, session_id):
        server.end_session(one)


def test_a_lease_can_be_moved_within_the_limit(server: Server, session_id: str, waiting_id: str) -> None:
    """From now on, and not beyond what the server allows since the session became active."""
    before = server.call("GET", f"/session/{session_id}").json()["lease_expires_at"]
    moved = server.call("POST", f"/session/{session_id}/extend", json={"lease_seconds": 60})
    assert moved.status_code == 200
    assert moved.json()["lease_expires_at"] < before
    too_long = server.call("POST", f"/session/{session_id}/extend", json={"lease_seconds": 14401})
    assert (too_long.status_code, too_long.json()["code"]) == (422, "lease_too_long")
    assert server.call("POST", f"/session/{waiting_id}/extend", json={"lease_seconds": 60}).status_code == 423
    assert server.call("POST", "/session/nobody/extend", json={"lease_seconds": 60}).status_code == 404
    assert server.call("POST", f"/session/{session_id}/extend", json={}).status_code == 422
