"""The acquire table against a real server with real labs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import Server, list_labs, ssh, wait_until

pytestmark = pytest.mark.lab

ONE = "provider: netns\ndefaults.device: linux\nnodes: [ h1 ]\n"
OTHER = "provider: netns\ndefaults.device: linux\nnodes: [ h1, h2 ]\nlinks: [ h1-h2 ]\n"


def acquired(server: Server, session_id: str, topology: str, *, reuse: bool = True) -> tuple[bool, int, str]:
    """Acquire; returns whether it was reused, the reference count, and which lab it is."""
    response = server.acquire(session_id, topology, reuse=reuse)
    assert response.status_code == 200, response.text
    [lab_id] = list_labs(server.state_dir)
    return response.json()["reused"], server.call("GET", "/lab", session_id).json()["ref_count"], lab_id


def refused(server: Server, session_id: str, topology: str, *, reuse: bool) -> tuple[int, str]:
    response = server.acquire(session_id, topology, reuse=reuse)
    return response.status_code, response.json()["code"]


def release(server: Server, session_id: str) -> int:
    return server.call("POST", "/lab/release", session_id).status_code


def test_acquire_table(serve: Callable[..., Server]) -> None:
    """Row by row, as one story of one session."""
    server = serve()
    session_id = server.open_session()

    reused, references, first = acquired(server, session_id, ONE)
    assert (reused, references) == (False, 1)
    assert acquired(server, session_id, ONE) == (True, 2, first)

    assert refused(server, session_id, ONE, reuse=False) == (423, "lab_busy")
    assert refused(server, session_id, OTHER, reuse=True) == (423, "lab_busy")
    assert refused(server, session_id, OTHER, reuse=False) == (423, "lab_busy")

    assert [release(server, session_id) for _ in range(3)] == [204, 204, 204]
    assert acquired(server, session_id, ONE) == (True, 1, first)

    assert release(server, session_id) == 204
    reused, references, second = acquired(server, session_id, ONE, reuse=False)
    assert (reused, references) == (False, 1)
    assert second != first

    assert release(server, session_id) == 204
    reused, references, third = acquired(server, session_id, OTHER)
    assert (reused, references) == (False, 1)
    assert third not in (first, second)

    assert release(server, session_id) == 204
    reused, _, fourth = acquired(server, session_id, ONE, reuse=False)
    assert not reused
    assert fourth != third


def test_two_callers_at_once_share_one_boot(serve: Callable[..., Server]) -> None:
    """Both get its devices, and both have a reference."""
    server = serve()
    session_id = server.open_session()
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: server.acquire(session_id, ONE).json(), range(2)))
    assert sorted(answer["reused"] for answer in answers) == [False, True]
    assert answers[0]["devices"] == answers[1]["devices"]
    assert server.call("GET", "/lab", session_id).json()["ref_count"] == 2
    assert len(list_labs(server.state_dir)) == 1


def test_a_lab_from_first_to_last_call(serve: Callable[..., Server], pair: Path) -> None:
    """Every route of the lab, in the order of a test suite that uses them all."""
    server = serve()
    session_id = server.open_session()
    nothing = {"running": False, "topology": None, "ref_count": 0, "devices": [], "netlab_status": None, "state": None}
    assert nothing.items() <= server.call("GET", "/lab", session_id).json().items()
    assert server.call("GET", "/lab/devices", session_id).json()["code"] == "lab_not_found"
    assert server.call("POST", "/lab/release", session_id).json()["code"] == "lab_not_found"
    assert server.call("DELETE", "/lab", session_id).status_code == 204

    devices = server.acquire(session_id, pair).json()["devices"]
    assert [device["name"] for device in devices] == ["r1", "r2"]
    assert server.call("GET", "/lab/devices", session_id).json() == devices
    status = server.call("GET", "/lab", session_id).json()
    assert (status["running"], status["topology"], status["devices"]) == (True, "ospf-pair.yml", devices)
    assert "running" in status["netlab_status"]
    assert "FRRouting" in ssh(devices[0]["raw"]["ansible_host"], "vtysh -c 'show version'")

    assert server.call("DELETE", "/lab?force=false", session_id).json()["code"] == "lab_in_use"
    assert server.call("DELETE", "/lab", session_id).status_code == 202
    wait_until(lambda: nothing.items() <= server.call("GET", "/lab", session_id).json().items(), "the lab is down")
    assert server.call("GET", "/lab/devices", session_id).status_code == 404
    assert server.acquire(session_id, pair).json()["reused"] is False


def test_two_slots_run_two_labs(serve: Callable[..., Server], pair: Path) -> None:
    """Two sessions with the same topology have devices of their own, both reachable."""
    server = serve(SLOTS=2)
    ids = [server.open_session() for _ in range(3)]
    assert [server.status(one) for one in ids] == [("active", 0), ("active", 1), ("waiting", 2)]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda one: server.acquire(one, pair).json(), ids[:2]))
    addresses = [device["raw"]["ansible_host"] for answer in answers for device in answer["devices"]]
    assert len(set(addresses)) == 4
    assert [ssh(address, "hostname").strip() for address in addresses] == ["r1", "r2", "r1", "r2"]
    server.end_session(ids[0])
    server.wait_active(ids[2])
    assert ssh(addresses[2], "hostname").strip() == "r1"


def test_a_topology_that_netlab_refuses_is_a_failed_boot_with_its_log(serve: Callable[..., Server]) -> None:
    """500 with phase and log tail; the slot is clean and the next acquire works."""
    server = serve()
    session_id = server.open_session()
    answer = server.acquire(session_id, "provider: netns\ndefaults.device: no_such_device\nnodes: [ r1 ]\n")
    assert (answer.status_code, answer.json()["code"]) == (500, "lab_boot_failed")
    assert answer.json()["phase"] == "create"
    assert "no_such_device" in answer.json()["log_tail"]
    assert acquired(server, session_id, ONE)[:2] == (False, 1)


def test_health_is_answered_while_a_lab_boots_and_goes_down(serve: Callable[..., Server], pair: Path) -> None:
    """Every time anybody asks."""
    server = serve()
    session_id = server.open_session()
    done = threading.Event()
    answers: list[int] = []

    def ask() -> None:
        while not done.is_set():
            answers.append(server.call("GET", "/healthz").status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    assert server.acquire(session_id, pair).status_code == 200
    server.end_session(session_id)
    wait_until(lambda: list_labs(server.state_dir) == [], "the lab is down")
    done.set()
    asking.join()
    assert len(answers) > 10
    assert set(answers) == {204}


def test_a_plugin_of_the_upload_finds_nothing_of_the_host(serve: Callable[..., Server]) -> None:
    """It runs, writes to /var/tmp, and what it wrote is in the sandbox alone."""
    server = serve()
    session_id = server.open_session()
    mark = f"remote-lab-{session_id}"
    plugin = (
        f"import os, pathlib\npathlib.Path('/var/tmp/{mark}').touch()\nprint('plugin sees', os.listdir('/var/tmp'))\n"
    )
    answer = server.acquire(session_id, f"plugin: [ spy ]\n{ONE}", **{"spy.py": plugin})
    assert answer.status_code == 200, answer.text
    [lab_id] = list_labs(server.state_dir)
    assert f"plugin sees ['{mark}']" in (server.state_dir / "labs" / lab_id / "boot.log").read_text()
    assert not Path("/var/tmp", mark).exists()
