"""What `remote-lab stopped`, which systemd runs after the service, makes of the way in which the service ended."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import CALL_SECONDS, STANDIN, Server, list_labs, running

UNIT = "remote-lab.service"
TOPOLOGY = "nodes: [ r1, r2 ]\n"
Systemctl = Callable[[str, int], str]


@pytest.fixture
def systemctl(tmp_path: Path) -> Systemctl:
    """Makes a stand-in for systemctl that prints this with this status; returns a PATH with it in front."""

    def make(says: str, status: int = 0) -> str:
        command = tmp_path / "bin" / "systemctl"
        command.parent.mkdir(exist_ok=True)
        command.write_text(f"#!/bin/sh\n[ $1 = list-jobs ] && echo '{says}'\nexit {status}\n")
        command.chmod(0o755)
        return f"{command.parent}:/usr/sbin:/usr/bin:/sbin:/bin"

    return make


def remote_lab(server: Server, *words: str, status: int = 0, **environment: str) -> tuple[str, str]:
    """What a command with the settings of a server prints on standard output and error."""
    done = subprocess.run(
        [sys.executable, "-m", "remote_lab", *words],
        env={**server.environment, **environment},
        capture_output=True,
        text=True,
        timeout=CALL_SECONDS,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done.stdout, done.stderr


def test_labs_go_with_a_stop_and_stay_otherwise(tmp_path: Path, systemctl: Systemctl) -> None:
    """Kept for a restart, after a crash, when told to and when systemd says nothing; taken down by a stop."""
    server = Server(tmp_path / "state", PROVIDER="clab", NETLAB=STANDIN)
    with running(server):
        session_id = server.open_session()
        server.wait_active(session_id)
        assert server.acquire(session_id, TOPOLOGY).status_code == 200
        assert server.terminate() == 0

        def stopped(result: str, path: str, **settings: str) -> str:
            words = ("stopped", "--unit", UNIT, "--result", result)
            return remote_lab(server, *words, PATH=path, **settings)[1]

        kept = "Labs that run stay up for the next start"
        assert f"{kept}: systemd has a restart job" in stopped("success", systemctl(f"7 {UNIT} restart running", 0))
        assert f"{kept}: it ended with the result watchdog" in stopped("watchdog", systemctl("", 0))
        assert "`remote-lab lab destroy --all`" in stopped("success", systemctl("no bus", 1))
        stop = systemctl(f"7 {UNIT} stop running", 0)
        assert f"{kept}: REMOTE_LAB_KEEP_LABS=always" in stopped("success", stop, REMOTE_LAB_KEEP_LABS="always")
        assert len(list_labs(server.state_dir)) == 1

        assert "Taking the lab down: the service was stopped" in stopped("timeout", stop)
        assert list_labs(server.state_dir) == []
        server.start()
        assert server.status(session_id) == ("active", 0)


def test_an_operator_ends_all_labs_of_a_server_that_is_down(tmp_path: Path) -> None:
    """`lab destroy --all`; it refuses while the server runs, and with the name of a lab."""
    server = Server(tmp_path / "state", PROVIDER="clab", NETLAB=STANDIN)
    with running(server):
        session_id = server.open_session()
        server.wait_active(session_id)
        assert server.acquire(session_id, TOPOLOGY).status_code == 200
        assert "Stop it first" in remote_lab(server, "lab", "destroy", "--all", status=1)[1]
        assert server.terminate() == 0
        remote_lab(server, "lab", "destroy", "--all", "1", status=2)
        assert remote_lab(server, "lab", "destroy", "--all")[0] == "No lab runs.\n"
        assert list_labs(server.state_dir) == []
        server.start()


def test_a_server_that_keeps_nothing_takes_its_labs_along(tmp_path: Path) -> None:
    """REMOTE_LAB_KEEP_LABS=never, without systemd."""
    server = Server(tmp_path / "state", PROVIDER="clab", NETLAB=STANDIN, KEEP_LABS="never")
    with running(server):
        session_id = server.open_session()
        server.wait_active(session_id)
        assert server.acquire(session_id, TOPOLOGY).status_code == 200
        assert server.terminate() == 0
        assert list_labs(server.state_dir) == []
        server.start()
