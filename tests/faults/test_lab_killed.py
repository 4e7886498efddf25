"""`kill -9` and SIGSTOP inside of real labs: of netlab, of the sandbox, of a device, of a daemon."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from footprint import HANGS, NODE, PLUGIN, ROUTER, Footprint, in_pod, pod_of, wait_for_nothing
from harness import Server, list_labs, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("pods")]


def kill_netlab(server: Server) -> None:
    for pid in in_pod(server, "bin/netlab"):
        os.kill(pid, signal.SIGKILL)


def kill_pod(server: Server) -> None:
    os.kill(pod_of(server), signal.SIGKILL)


def boot_with(server: Server, session_id: str, fault: Callable[[Server], None]) -> requests.Response:
    """What the client is answered whose boot meets a fault while netlab is at work."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.acquire, session_id, HANGS, **PLUGIN)
        wait_until(lambda: any("the plugin hangs" in log for log in boot_logs(server)), "netlab is at work")
        fault(server)
        return answer.result()


def boot_logs(server: Server) -> list[str]:
    return [path.read_text() for path in server.state_dir.glob("labs/*/boot.log") if (path.parent / "lab").exists()]


def test_a_boot_whose_netlab_or_sandbox_dies(serve: Callable[..., Server]) -> None:
    """It is answered with 500 lab_boot_failed, the phase and the log; nothing is left, and the next lab boots."""
    server = serve()
    session_id = server.open_session()
    for fault in (kill_netlab, kill_pod):
        answer = boot_with(server, session_id, fault)
        body = answer.json()
        assert (answer.status_code, body["code"], body["phase"]) == (500, "lab_boot_failed", "create"), body
        assert "netlab up ended" in body["detail"]
        assert "the plugin hangs" in body["log_tail"]
        assert "Last lines of its log" in server.log.read_text()
        wait_for_nothing(server)
    assert server.acquire(session_id, NODE).status_code == 200


def test_a_boot_whose_netlab_stops(serve: Callable[..., Server]) -> None:
    """SIGSTOP: it is ended at the deadline of the boot, and answered like any other that takes too long."""
    server = serve(BOOT_SECONDS=6)
    session_id = server.open_session()
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(server.acquire, session_id, HANGS, **PLUGIN)
        wait_until(lambda: in_pod(server, "bin/netlab"), "netlab is at work")
        for pid in in_pod(server, "bin/netlab"):
            os.kill(pid, signal.SIGSTOP)
        body = told.result().json()
    assert (body["code"], body["phase"]) == ("lab_boot_failed", "create"), body
    assert "it took longer than the server allows" in body["detail"]
    wait_for_nothing(server)
    assert server.status(session_id) == ("active", 0)


def test_a_sandbox_that_dies_under_its_user(serve: Callable[..., Server]) -> None:
    """The reaper finds out; the session keeps its slot without a lab, and gets another one."""
    server = serve()
    session_id = server.open_session()
    server.acquire(session_id, NODE)
    [lab_id] = list_labs(server.state_dir)
    kill_pod(server)
    wait_until(lambda: not server.call("GET", "/lab", session_id).json()["running"], "the reaper has found out")
    assert "The lab died: its sandbox is gone" in server.log.read_text()
    wait_for_nothing(server)
    assert server.status(session_id) == ("active", 0)
    assert server.call("GET", "/lab/devices", session_id).json()["code"] == "lab_not_found"
    assert server.acquire(session_id, NODE).json()["reused"] is False
    assert lab_id not in list_labs(server.state_dir)


def test_a_dead_daemon_and_a_dead_device(serve: Callable[..., Server]) -> None:
    """The status names them; who uses the lab keeps what is left, who acquires it afterwards gets a new one."""
    server = serve()
    session_id = server.open_session()
    devices = server.acquire(session_id, ROUTER).json()["devices"]
    [zebra] = in_pod(server, "frr/zebra")
    os.kill(zebra, signal.SIGKILL)
    says = "not running: zebra"
    wait_until(lambda: says in server.call("GET", "/lab", session_id).json()["netlab_status"], "the status says so")
    [first] = in_pod(server, "remote-lab-node:r1")
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: "Of the lab: not running: r1" in server.log.read_text(), "the reaper has logged it")
    assert server.log.read_text().count("Of the lab: not running: r1") == 1
    assert server.call("GET", "/lab/devices", session_id).json() == devices
    assert server.acquire(session_id, ROUTER).json()["reused"] is True
    for _ in range(2):
        server.call("POST", "/lab/release", session_id)
    links = Footprint.of(server).links
    assert server.acquire(session_id, ROUTER).json()["reused"] is False
    assert "The lab died: not running: r1" in server.log.read_text()
    assert len(in_pod(server, "remote-lab-node:r1")) == 1
    assert len(Footprint.of(server).links) == len(links) == 1
