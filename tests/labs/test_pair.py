"""One lab of two OSPF routers, seen from every side."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab_host import EXAMPLES, Host, make_runner

from remote_lab.netlab.runner import PHASES, Device, LabPlace

pytestmark = pytest.mark.lab

Ssh = Callable[..., subprocess.CompletedProcess[str]]


@dataclass
class Lab:
    place: LabPlace
    devices: list[Device]
    phases: list[str]


@pytest.fixture(scope="module")
def lab(host: Host) -> Lab:
    place = host.place((EXAMPLES / "ospf-pair.yml").read_text())
    phases: list[str] = []
    devices = host.runner.boot(place, cancel=threading.Event(), report_phase=phases.append)
    return Lab(place, devices, phases)


def test_devices_are_what_netlab_inspect_prints(host: Host, lab: Lab) -> None:
    """Every node is handed over, each value for value as `netlab inspect --node` prints it."""
    printed = {
        name: json.loads(
            host.inside(lab.place, "/opt/remote-lab/bin/netlab", "inspect", "--node", name, "--format", "json").stdout
        )
        for name in ("r1", "r2")
    }
    assert printed == {device.name: device.raw for device in lab.devices}


def test_phases_are_reported_in_order(lab: Lab) -> None:
    """A boot tells each of its phases once, in order."""
    assert lab.phases == list(PHASES)


def test_ssh_with_password_and_key(host: Host, lab: Lab, ssh: Ssh, tmp_path: Path) -> None:
    """The host logs in to every device as root, with the password and with the lab's key."""
    key = tmp_path / "id_ed25519"
    key.touch(0o600)
    key.write_text(host.runner.login_key(lab.place) or "there is none")
    names = [(ssh(device, "hostname").stdout, ssh(device, "hostname", key).stdout) for device in lab.devices]
    assert names == [("r1\n", "r1\n"), ("r2\n", "r2\n")]


def test_routers_become_ospf_neighbors(lab: Lab, ssh: Ssh) -> None:
    """OSPF comes up between the two routers."""
    deadline = time.monotonic() + 60
    while "Full" not in (said := ssh(lab.devices[0], "vtysh -c 'show ip ospf neighbor'").stdout):
        assert time.monotonic() < deadline, said
        time.sleep(0.5)


def test_probe_and_status_of_a_running_lab(host: Host, lab: Lab) -> None:
    """A running lab is said to run, node by node."""
    assert host.runner.probe(lab.place) is None
    status = host.runner.status(lab.place)
    assert "started" in status
    assert status.count("running") == 2


def test_netlab_works_on_the_running_lab(host: Host, lab: Lab) -> None:
    """`netlab connect` and `netlab exec` reach the devices from inside the pod."""
    netlab = "/opt/remote-lab/bin/netlab"
    shown = host.inside(lab.place, netlab, "connect", "r1", "--show", "version").stdout
    assert "FRRouting" in shown
    assert host.inside(lab.place, netlab, "exec", "r2", "hostname").stdout.strip() == "r2"


def test_restarted_server_adopts_the_lab(host: Host, lab: Lab) -> None:
    """A new runner on the same state folder finds the lab running, and an orphan where nobody knows it."""
    restarted = make_runner(host.state_dir)
    assert restarted.probe(lab.place) is None
    assert restarted.orphans([]) == [lab.place.lab_id]
    assert restarted.orphans([lab.place.lab_id]) == []


def test_other_servers_do_not_see_the_lab(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A server with another state folder neither finds the lab nor ends it."""
    other = make_runner(tmp_path_factory.mktemp("other"))
    assert other.orphans([]) == []
    assert other.probe(lab.place) == "its sandbox is gone"


@pytest.mark.parametrize(
    "attempt",
    [
        "mount -o remount,bind,rw /image",
        "touch /image/etc/poisoned",
        "umount /image && touch /image/etc/poisoned && test -e /image/etc/passwd",
        "kill -9 1; sleep 0.1; kill -0 1 && exit 1",
        "mknod /tmp/disk b 254 0",
        "echo 1 > /proc/sys/kernel/sysrq",
    ],
)
def test_root_of_a_pod_cannot(host: Host, lab: Lab, attempt: str) -> None:
    """Root in a pod can change neither the image nor the host, nor end the pod's PID 1."""
    assert host.inside(lab.place, "/bin/sh", "-c", attempt).returncode != 0
    assert host.pod(lab.place).pid is not None


def test_pod_sees_nothing_of_the_host(host: Host, lab: Lab) -> None:
    """In a pod there are only its own processes, mounts of its own and an environment that is empty."""
    mounts = host.inside(lab.place, "/bin/cat", "/proc/self/mountinfo").stdout.splitlines()
    roots = {line.split()[4] for line in mounts}
    assert {root for root in roots if not root.startswith(("/dev", "/image", "/lab", "/proc", "/sys"))} == {
        "/",
        "/run",
        "/tmp",
    }
    environment = host.inside(lab.place, "/bin/cat", "/proc/1/environ").stdout.rstrip("\0").split("\0")
    assert [item.partition("=")[0] for item in environment] == ["PATH"]
    descriptors = host.inside(lab.place, "/bin/sh", "-c", "readlink /proc/1/fd/*").stdout.split()
    assert set(descriptors) == {"/dev/null"}
