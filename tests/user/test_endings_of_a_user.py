"""Labs of an ordinary user's server when processes are killed: adopted or ended, never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from harness import running, wait_until
from ordinary_user import OrdinaryUser
from user_server import UserServer, children, keepers, processes_of_labs, spares, ssh

from remote_lab.client import RemoteLabClient

pytestmark = pytest.mark.lab


def listeners() -> set[str]:
    """The addresses of 127.0.0.0/8 but 127.0.0.1 on which something listens."""
    lines = subprocess.check_output(["ss", "-Hltn", "src", "127.0.0.0/8"], text=True).splitlines()
    return {line.split()[3].rsplit(":", 1)[0] for line in lines} - {"127.0.0.1"}


def test_lab_outlives_a_killed_server(user: OrdinaryUser, single: Path) -> None:
    """After kill -9 of the server and a restart the lab is the same one, and its devices are reached all the time."""
    server = UserServer(user, "killed", REAPER_SECONDS=0.5)
    with running(server), RemoteLabClient(server.url) as client:
        (device,) = client.acquire(single, reuse=True)
        before = keepers(server)
        server.kill()
        assert ssh(device, "hostname") == "h1\n"
        server.start()
        (again,) = client.acquire(single, reuse=True)
        assert again.raw == device.raw
        assert keepers(server) == before
        assert ssh(again, "hostname") == "h1\n"
    assert keepers(server) + spares(server) == []


def test_lab_that_nobody_knows_is_ended(user: OrdinaryUser, single: Path) -> None:
    """A pod of a server that lost its database is ended at the next start, with all that was in it."""
    server = UserServer(user, "forgetful", REAPER_SECONDS=0.5)
    with running(server):
        session_id = server.open_session()
        assert server.acquire(session_id, single).status_code == 200
        server.kill()
        assert keepers(server)
        for file in server.state_dir.glob("remote-lab.sqlite3*"):
            file.unlink()
        server.start()
        wait_until(lambda: not keepers(server), "the pod is ended")
        wait_until(lambda: not processes_of_labs(server), "nothing of it runs")


def test_pod_ends_as_a_whole(user: OrdinaryUser, single: Path) -> None:
    """kill -9 of any process that holds the pod leaves nothing of it, no address either, and the server says so."""
    server = UserServer(user, "victims", REAPER_SECONDS=0.5)
    with running(server), RemoteLabClient(server.url) as client:
        for victim in ("keeper", "pod", "forwarder"):
            (device,) = client.acquire(single, reuse=True)
            assert device.host in listeners()
            (keeper,) = keepers(server)
            pod, forwarder = children(keeper)
            os.kill({"keeper": keeper, "pod": pod, "forwarder": forwarder}[victim], signal.SIGKILL)
            wait_until(lambda: not processes_of_labs(server), f"nothing of the lab runs without its {victim}")
            wait_until(lambda host=device.host: host not in listeners(), "its addresses are free")
            wait_until(lambda: not client.status().running, "the server knows")
