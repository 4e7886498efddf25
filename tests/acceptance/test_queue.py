"""The queue's rules against a real server."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import STANDIN, Server, list_labs, wait_until

SLOW_DOWN = "nodes: [ r1 ]\nstandin: { down_seconds: 1 }\n"


def test_strict_fifo(serve: Callable[..., Server]) -> None:
    """Twenty arrive at once; whatever the order of arrival was, they are served in the order of their positions."""
    server = serve(PROVIDER="clab", NETLAB=STANDIN)
    with ThreadPoolExecutor(20) as pool:
        arrivals = [answer.json() for answer in pool.map(lambda _: server.call("POST", "/session"), range(20))]
    queue = [arrival["session_id"] for arrival in sorted(arrivals, key=lambda arrival: arrival["position"])]
    assert sorted(arrival["position"] for arrival in arrivals) == list(range(20))
    leaves_early = queue.pop(7)
    server.end_session(leaves_early)
    while queue:
        states = [server.status(one) for one in queue]
        assert states == [("active" if n == 0 else "waiting", n) for n in range(len(queue))]
        assert server.call("GET", "/active-session").json()["session_id"] == queue[0]
        server.end_session(queue.pop(0))


def test_the_end_of_a_session_answers_before_its_lab_is_down(serve: Callable[..., Server]) -> None:
    """The next is active at once, and only its acquire waits for the teardown."""
    server = serve(PROVIDER="clab", NETLAB=STANDIN)
    first, second = server.open_session(), server.open_session()
    server.acquire(first, SLOW_DOWN)
    server.end_session(first)
    head = server.call("GET", "/active-session").json()
    assert head == {"session_id": second, "status": "active", "position": 0}
    assert server.call("GET", "/lab", second).json()["state"] == "stopping"
    assert server.acquire(second, "nodes: [ r1 ]\n").json()["reused"] is False
    assert len(list_labs(server.state_dir)) == 1


def test_a_silent_session_ends_and_a_heartbeat_prevents_it(serve: Callable[..., Server]) -> None:
    """With short timers: who calls stays, who vanishes is out, and the next gets the slot."""
    server = serve(PROVIDER="clab", NETLAB=STANDIN, ACTIVE_SECONDS=1, WAITING_SECONDS=600, REAPER_SECONDS=0.1)
    vanished, faithful = server.open_session(), server.open_session()
    server.wait_active(faithful)
    silent = server.call("GET", f"/session/{vanished}")
    assert silent.status_code == 404
    assert "silent for" in silent.json()["detail"]
    started = server.call("GET", "/debug/health").json()["uptime"]

    def beats_for_three_timeouts() -> bool:
        assert server.call("POST", "/session/heartbeat", faithful).status_code == 204
        return server.call("GET", "/debug/health").json()["uptime"] > started + 3

    wait_until(beats_for_three_timeouts, "three timeouts have passed")
    assert server.status(faithful)[0] == "active"
    wait_until(lambda: server.call("GET", "/active-session").status_code == 404, "it ends when the beats end")


def test_a_waiting_session_that_vanishes_ends(serve: Callable[..., Server]) -> None:
    """And those behind it move up."""
    server = serve(PROVIDER="clab", NETLAB=STANDIN, WAITING_SECONDS=1, REAPER_SECONDS=0.1)
    active, vanished, last = (server.open_session() for _ in range(3))
    wait_until(lambda: server.status(last)[1] == 1, "the one in the middle is gone")
    assert server.status(active)[0] == "active"
    assert server.call("GET", f"/session/{vanished}").status_code == 404


def test_watching_the_queue_keeps_nobody_alive(serve: Callable[..., Server]) -> None:
    """GET /active-session refreshes no session, and neither does a call that is refused."""
    server = serve(PROVIDER="clab", NETLAB=STANDIN, ACTIVE_SECONDS=1, REAPER_SECONDS=0.1)
    session_id = server.open_session()

    def is_over() -> bool:
        server.call("DELETE", "/lab?force=perhaps", session_id)
        server.call("GET", "/lab/devices", session_id)
        return server.call("GET", "/active-session").status_code == 404

    wait_until(is_over, "the session has ended")


def test_a_long_boot_outlives_the_silence_limit(serve: Callable[..., Server]) -> None:
    """A session whose lab boots is never stale."""
    server = serve(PROVIDER="clab", NETLAB=STANDIN, ACTIVE_SECONDS=0.5, REAPER_SECONDS=0.1)
    session_id = server.open_session()
    assert server.acquire(session_id, "nodes: [ r1 ]\nstandin: { up_seconds: 2 }\n").status_code == 200


@pytest.mark.parametrize("step", ["up_hangs", "up_fails"])
def test_a_boot_that_fails_frees_the_slot(serve: Callable[..., Server], step: str) -> None:
    """Also one that only its deadline ends; the next acquire works."""
    server = serve(PROVIDER="clab", NETLAB=STANDIN, BOOT_SECONDS=6)
    session_id = server.open_session()
    answer = server.acquire(session_id, f"nodes: [ r1 ]\nstandin: {{ {step}: true, ignore_sigterm: true }}\n")
    assert (answer.status_code, answer.json()["code"]) == (500, "lab_boot_failed")
    assert server.acquire(session_id, "nodes: [ r1 ]\n").status_code == 200


def test_promotion_happens_when_netlab_down_hangs(serve: Callable[..., Server]) -> None:
    """The deadline of the teardown ends it."""
    server = serve(PROVIDER="clab", NETLAB=STANDIN, TEARDOWN_SECONDS=1)
    first, second = server.open_session(), server.open_session()
    server.acquire(first, "nodes: [ r1 ]\nstandin: { down_hangs: true, down_force_hangs: true }\n")
    server.end_session(first)
    server.wait_active(second)
    assert server.acquire(second, "nodes: [ r1 ]\n").status_code == 200
    assert "Teardown: " in server.log.read_text()


def test_an_idle_lab_is_torn_down(serve: Callable[..., Server]) -> None:
    """After REMOTE_LAB_IDLE_SECONDS without a reference; a referenced one stays."""
    server = serve(PROVIDER="clab", NETLAB=STANDIN, IDLE_SECONDS=0.5, REAPER_SECONDS=0.1)
    session_id = server.open_session()
    server.acquire(session_id, "nodes: [ r1 ]\n")
    server.call("POST", "/lab/release", session_id)
    wait_until(lambda: not server.call("GET", "/lab", session_id).json()["running"], "the lab is down")
    assert server.status(session_id)[0] == "active"


def test_the_calls_of_netlab_are_few(serve: Callable[..., Server], tmp_path: Path) -> None:
    """One up and one inspect for a boot, one down for a teardown, nothing for an attach."""
    server = serve(PROVIDER="clab", NETLAB=STANDIN)
    session_id = server.open_session()
    for _ in range(3):
        assert server.acquire(session_id, "nodes: [ r1, r2, r3 ]\n").status_code == 200
    [lab_id] = list_labs(server.state_dir)
    calls = (server.state_dir / "labs" / lab_id / "standin-calls.jsonl").read_text().splitlines()
    assert len(calls) == 2
