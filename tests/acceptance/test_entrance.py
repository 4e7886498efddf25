"""With whom a server starts to talk: open on loopback, by token elsewhere, and never open by accident."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from doors import Door
from harness import STANDIN, Server, running, wait_until

PUBLIC = ("--host", "0.0.0.0")
"""Any address but loopback; nobody is called on it."""


@pytest.fixture
def fresh(tmp_path: Path) -> Server:
    """A server that has never run."""
    return Server(tmp_path / "state", PROVIDER="clab", NETLAB=STANDIN)


def test_on_loopback_it_is_open_and_says_so(fresh: Server) -> None:
    """As long as nobody made a token."""
    with running(fresh):
        assert fresh.call("GET", "/queue").json() == []
    assert "Open to everybody on this host (REMOTE_LAB_AUTH=auto, and no token was ever made)" in fresh.log.read_text()


def test_the_first_start_elsewhere_prints_how_to_connect(fresh: Server) -> None:
    """Once, where somebody reads it, and not into the log; what it prints works as it is."""
    command = [sys.executable, "-m", "remote_lab", "serve", "--port", str(fresh.port), *PUBLIC]
    with fresh.log.open("ab") as log:
        fresh.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, env=fresh.environment, start_new_session=True, text=True
        )
    try:
        fresh.wait_until_it_answers()
        fresh.process.send_signal(signal.SIGTERM)
        printed, _ = fresh.process.communicate(timeout=60)
        found = re.search(r"export REMOTE_LAB_URL=http://\S+:(\d+) REMOTE_LAB_TOKEN=(rlab_[0-9a-f]{64})\n", printed)
        assert found is not None, printed
        assert int(found[1]) == fresh.port
        assert found[2] not in fresh.log.read_text()
        fresh.token = found[2]
        with running(fresh.with_options(*PUBLIC)):
            assert fresh.call("GET", "/queue", token="").status_code == 401
            fresh.end_session(fresh.open_session())
        assert "REMOTE_LAB_TOKEN=" not in fresh.log.read_text()
    finally:
        if fresh.process.poll() is None:
            fresh.kill()


def test_a_start_that_nobody_watches_prints_no_token(fresh: Server) -> None:
    """It ends with both remedies, before anything is made."""
    process = fresh.with_options(*PUBLIC).spawn()
    assert process.wait(60) == 1
    said = fresh.log.read_text()
    assert "remote-lab token create NAME" in said
    assert "--auth=open" in said
    assert not (fresh.state_dir / "remote-lab.sqlite3").exists()


def test_open_elsewhere_is_said_loudly(fresh: Server) -> None:
    """For who asked for it."""
    with running(fresh.with_options(*PUBLIC, "--auth=open")):
        assert fresh.call("GET", "/queue").status_code == 200
    assert "| WARNING | remote-lab-server | Open to everybody who reaches 0.0.0.0" in fresh.log.read_text()


def test_a_server_does_not_open_because_its_last_token_is_over(tmp_path: Path) -> None:
    """It lets nobody in, and says what to do."""
    server = Door(tmp_path / "state")
    server.revoke("operator-of-tests")
    server.spawn()
    try:
        server.wait_until_it_answers()
        assert server.call("GET", "/queue").status_code == 401
        assert server.call("GET", "/queue", token="").status_code == 401
        wait_until(lambda: "No token can be used" in server.log.read_text(), "the log says so")
    finally:
        server.terminate()
