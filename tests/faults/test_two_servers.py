"""Several servers on one host: on one state folder only one lives, and none touches what is another's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from footprint import NODE, Footprint, ip, kill_both, pod_of, wait_for_nothing
from harness import STANDIN, Server, list_labs, wait_until


@pytest.mark.lab
def test_servers_do_not_end_each_others_labs(pods: None, serve: Callable[..., Server]) -> None:
    """Neither by their rounds, nor when one is killed and comes again, nor when it ends for good."""
    one, other = serve("one"), serve("other")
    sessions = {server: server.open_session() for server in (one, other)}
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda server: server.acquire(sessions[server], NODE), sessions))
    assert [answer.status_code for answer in answers] == [200, 200]
    before = pod_of(one), pod_of(other)
    kill_both(one)
    assert one.acquire(sessions[one], NODE).json()["reused"] is True
    assert (pod_of(one), pod_of(other)) == before
    one.end_session(sessions[one])
    wait_for_nothing(one)
    one.terminate()
    assert pod_of(other) == before[1]
    assert other.acquire(sessions[other], NODE).json()["reused"] is True
    assert "orphan" not in one.log.read_text() + other.log.read_text()


def test_of_servers_that_start_at_once_one_serves(tmp_path: Path) -> None:
    """The others say who it is and end with status 1."""
    servers = [Server(tmp_path / "state", PROVIDER="clab", NETLAB=STANDIN) for _ in range(4)]
    for number, server in enumerate(servers):
        server.log = tmp_path / f"{number}.log"
        server.spawn()
    wait_until(lambda: sum(ended(server) for server in servers) == 3, "three have ended")
    [left] = [server for server in servers if not ended(server)]
    try:
        left.wait_until_it_answers()
        assert left.process is not None
        for server in servers:
            if server is not left:
                assert server.process is not None
                assert server.process.wait() == 1
                assert f"Another server uses {left.state_dir}" in server.log.read_text()
    finally:
        left.terminate()


def ended(server: Server) -> bool:
    assert server.process is not None
    return server.process.poll() is not None


def test_files_that_lie_end_nothing_and_hide_nothing(serve: Callable[..., Server], tmp_path: Path) -> None:
    """`server.json` names a process of somebody else, locks and labs are not what they seem: none of it is believed."""
    server = serve(PROVIDER="clab", NETLAB=STANDIN)
    session_id = server.open_session()
    server.acquire(session_id, "nodes: [ r1 ]\n")
    [lab_id] = list_labs(server.state_dir)
    bystander = serve("bystander", PROVIDER="clab", NETLAB=STANDIN)
    assert bystander.process is not None
    server.kill()
    lie = {"pid": bystander.process.pid, "user": "root", "host": "h", "address": "a", "version": "1", "started_at": "x"}
    (server.state_dir / "server.json").write_text(json.dumps(lie))
    for name in ("server.lock", "worker.lock"):
        (server.state_dir / name).write_text(str(bystander.process.pid))
    (server.state_dir / "labs" / "stray").write_text("a file where labs have folders\n")
    (server.state_dir / "labs" / "link").symlink_to(bystander.state_dir)
    server.start()
    assert bystander.call("GET", "/healthz").status_code == 204
    assert server.acquire(session_id, "nodes: [ r1 ]\n").json()["reused"] is True
    wait_until(lambda: os.listdir(server.state_dir / "labs") == [lab_id], "what is no lab's goes")
    assert (bystander.state_dir / "remote-lab.sqlite3").exists()


@pytest.mark.lab
def test_a_host_that_was_rebooted(pods: None, serve: Callable[..., Server]) -> None:
    """All is on disk, nothing runs, no link is there: the labs are found dead, the sessions go on, in order."""
    server = serve()
    first, second = server.open_session(), server.open_session()
    server.acquire(first, NODE)
    server.kill()
    number = next(iter(Footprint.of(server).links))
    os.kill(pod_of(server), signal.SIGKILL)

    with suppress(subprocess.CalledProcessError):  # the kernel may be faster
        ip("link", "delete", f"rlab{number}")
    (server.state_dir / "server.json").write_text("")
    server.start()
    assert "The lab died: its sandbox is gone" in server.log.read_text()
    assert [server.status(one) for one in (first, second)] == [("active", 0), ("waiting", 1)]
    wait_for_nothing(server)
    assert server.acquire(first, NODE).json()["reused"] is False
