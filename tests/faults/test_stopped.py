"""A worker that does nothing any more, and a clock that jumped while no server ran."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from footprint import worker_of
from harness import STANDIN, Server, running, wait_until
from started import ServerStarted

PLAIN = "nodes: [ r1 ]\n"


def test_a_worker_that_stopped(tmp_path: Path) -> None:
    """Who calls meanwhile is answered by the one that replaces it; queue, lab and references are as before."""
    server = ServerStarted(tmp_path / "state", PROVIDER="clab", NETLAB=STANDIN)
    server.statements = "import remote_lab.server\nremote_lab.server.WORKER_SILENCE_SECONDS = 2"
    with running(server):
        ids = [server.open_session() for _ in range(2)]
        server.acquire(ids[0], PLAIN)
        worker = worker_of(server)
        os.kill(worker, signal.SIGSTOP)
        assert server.status(ids[0]) == ("active", 0)
        assert worker_of(server) != worker
        assert f"WORKER TIMEOUT (pid:{worker})" in server.log.read_text()
        assert [server.status(one) for one in ids] == [("active", 0), ("waiting", 1)]
        assert server.acquire(ids[0], PLAIN).json()["reused"] is True
        assert server.call("GET", "/lab", ids[0]).json()["ref_count"] == 2


@pytest.mark.parametrize("jump_seconds", [60, -3600])
def test_a_clock_that_jumped_while_no_server_ran(
    serve: Callable[..., Server], tmp_path: Path, jump_seconds: int
) -> None:
    """In a time namespace the host was booted earlier or later: to a server there, the time of day has jumped."""
    probe = ("unshare", "--time", "--boottime", str(-jump_seconds))
    if subprocess.run([*probe, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no time namespaces here")
    server = serve(PROVIDER="clab", NETLAB=STANDIN)
    session_id = server.open_session()
    server.acquire(session_id, PLAIN)
    before = lease_of(server, session_id)
    server.terminate()
    elsewhere = ServerStarted(server.state_dir, PROVIDER="clab", NETLAB=STANDIN)
    elsewhere.prefix = probe
    with running(elsewhere):
        moved = (lease_of(elsewhere, session_id) - before).total_seconds()
        assert moved == pytest.approx(jump_seconds, abs=2)
        assert f"The host's clock jumped by {jump_seconds:+d} s since an earlier server" in elsewhere.log.read_text()
        assert elsewhere.acquire(session_id, PLAIN).json()["reused"] is True


def lease_of(server: Server, session_id: str) -> datetime:
    """When the session's lease ends, by the host's time."""
    return datetime.fromisoformat(server.call("GET", f"/session/{session_id}").json()["lease_expires_at"])


def test_a_status_that_hangs_holds_nobody_up(standin: Server) -> None:
    """`netlab status` never returns: the user is told, others are served, and the reaper goes on."""
    first, second = standin.open_session(), standin.open_session()
    standin.acquire(first, "nodes: [ r1 ]\nstandin: { status_hangs: true }\n")
    answer = standin.call("GET", "/lab", first)
    assert (answer.status_code, answer.json()["running"]) == (200, True)
    assert answer.json()["netlab_status"] == "netlab status gave no answer within 5 seconds."
    assert standin.call("GET", "/healthz").status_code == 204
    standin.end_session(first)
    wait_until(lambda: standin.status(second)[0] == "active", "the next has its turn")
