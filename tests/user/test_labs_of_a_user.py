"""Real labs on a server that an ordinary user runs: what they reach, and from where they are reached."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROOT, running, wait_until
from ordinary_user import OrdinaryUser
from user_server import UserServer, children, keepers, ssh

from remote_lab.client import DeviceInfoDto, RemoteLabClient

pytestmark = pytest.mark.lab

PAIR = ROOT / "examples/ospf-pair.yml"


def inside(server: UserServer, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the one pod of a server, as its root, as nobody but root of the host can."""
    (keeper,) = keepers(server)
    pid = children(keeper)[0]
    enter = ["nsenter", "-t", str(pid), "-U", "-n", "-m", "-u", "-i", "-p", "-r", "-w", "-S", "0", "-G", "0", "--"]
    return subprocess.run([*enter, *command], capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture(scope="module")
def server(user: OrdinaryUser) -> Iterator[UserServer]:
    server = UserServer(user, "state", SLOTS=2, REAPER_SECONDS=0.5)
    with running(server):
        yield server


@pytest.fixture(scope="module")
def client(server: UserServer) -> Iterator[RemoteLabClient]:
    with RemoteLabClient(server.url) as client:
        yield client
    wait_until(lambda: not keepers(server), "no pod is left")


def test_devices_are_reached_through_the_pod(client: RemoteLabClient) -> None:
    """What the API says of host, port, user and key is all that ssh needs, for each device; netlab says the same."""
    devices = client.acquire(PAIR, reuse=True)
    assert [ssh(device, "hostname").strip() for device in devices] == ["r1", "r2"]
    assert all(device.host is not None and device.host.startswith("127.18.") for device in devices)
    assert {device.port for device in devices} == {20022}
    status = client.status()
    assert (status.running, (status.netlab_status or "").count("running")) == (True, 2)


def test_netlab_of_the_operator_reaches_the_devices_too(server: UserServer, client: RemoteLabClient) -> None:
    """`remote-lab lab netlab`, typed by the user, logs in to devices and shows routes of the other one."""
    client.acquire(PAIR, reuse=True)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = server.command("lab", "netlab", "--", *words)
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    connected = run("connect", "r1", "hostname")
    assert (connected.returncode, connected.stdout.strip()) == (0, "r1"), connected.stderr
    assert "FRRouting" in run("exec", "r2", "vtysh", "-c", "show version").stdout


def test_lab_sees_nothing_of_the_user(server: UserServer, client: RemoteLabClient) -> None:
    """In the pod there is no file of the user, no way to the host, and an image that stays as it is."""
    client.acquire(PAIR, reuse=True)
    wait_until(lambda: len(keepers(server)) == 1, "one pod runs")
    assert inside(server, "ls", str(server.user.home)).returncode != 0
    interfaces = inside(server, "ip", "-brief", "link").stdout
    assert {line.split()[0].split("@")[0] for line in interfaces.splitlines()} == {"lo", "mgmt", "m1", "m2"}
    assert inside(server, "ip", "route", "get", "8.8.8.8").returncode != 0
    remounted = inside(server, "mount", "-o", "remount,rw,bind", "/image")
    assert (remounted.returncode != 0, inside(server, "touch", "/image/mark").returncode != 0) == (True, True)
    assert len(server.user.processes_of_labs()) > 8


def test_two_labs_at_the_same_time(server: UserServer, client: RemoteLabClient, single: Path) -> None:
    """Labs of two sessions have addresses of their own, and each lab's key opens its own devices alone."""
    with RemoteLabClient(server.url) as other:
        first, (second,) = client.acquire(PAIR, reuse=True)[0], other.acquire(single, reuse=True)
        assert first.host != second.host
        assert (ssh(first, "hostname"), ssh(second, "hostname")) == ("r1\n", "h1\n")
        assert first.key_file is not None
        mixed_up = DeviceInfoDto(first.name, second.raw, key_file=first.key_file)
        with pytest.raises(AssertionError, match="Permission denied"):
            ssh(mixed_up, "hostname")
