"""The spare sandbox: the next boot takes it, nobody mistakes it for a lab, and nothing of it is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import wait_until
from lab_host import IMAGE_DIR, POOL, Host, make_runner

from remote_lab.errors import LabBootCancelled
from remote_lab.netlab import management, processes
from remote_lab.netlab.pod_site import state_tag

pytestmark = pytest.mark.lab

PAIR = """
defaults.device: frr
module: [ ospf ]
nodes: [ r1, r2 ]
links:
- r1-r2
- r2:
  prefix.ipv6: 2001:db8:1::/64
"""
SINGLE = "defaults.device: linux\nnodes: [ h1 ]\n"
_SERVER = """
import os, signal, sys
from ipaddress import IPv4Network
from pathlib import Path
from remote_lab.netlab.runner import Runner
state_dir, image_dir, pool = sys.argv[1:]
runner = Runner(
    provider="netns", netlab=None, image=None, image_dir=Path(image_dir), image_mirror=None, state_dir=Path(state_dir),
    management_pool=IPv4Network(pool), boot_seconds=60, teardown_seconds=20,
)
runner.keep_spare()
print(os.getpid(), flush=True)
signal.pause()
"""


@pytest.fixture
def spare(host: Host) -> Iterator[management.Claim]:
    """The claim of a spare that is there."""
    host.runner.keep_spare()
    wait_until(host.runner.has_spare, "there is a spare sandbox")
    (claim,) = spares(host.state_dir)
    yield claim
    host.runner.drop_spare()
    assert not spares(host.state_dir)


def spares(state_dir: Path) -> list[management.Claim]:
    """What names itself a spare of the server with this state folder."""
    tag = state_tag(state_dir)
    return [one for one in management.claims() if one.owner == tag and one.lab_id.startswith("spare-")]


def first_process(number: int) -> int:
    (pid,) = (one.pid for one in processes.pod_processes() if one.number == number and one.is_pid_1)
    return pid


def seals(pid: int) -> list[str]:
    """What the kernel holds a process to for good."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return [line for line in lines if line.startswith(("NoNewPrivs", "Seccomp:", "CapBnd", "Uid", "Groups"))]


def test_a_boot_takes_the_spare_and_gets_a_new_one(
    host: Host, spare: management.Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lab is like any other: files, devices, name, seals. No netlab is started for it; the next spare is made."""
    pid = first_process(spare.number)
    before = seals(pid)
    entered = count_entries(monkeypatch)
    place = host.place(PAIR, sub__txt="of the upload\n")
    devices = host.boot(place)

    pod = host.pod(place)
    assert (pod.number, pod.pid) == (spare.number, pid)
    assert seals(pid) == before
    assert host.runner.probe(place) is None
    assert host.inside(place, "/usr/bin/cat", "sub.txt").stdout == "of the upload\n"
    assert host.inside(place, "/usr/bin/ls", "/proc/1/fd").stdout.split() == ["0", "1", "2"]
    assert [processes.command_name(pid).rpartition(":")[2]] == [place.lab_id]
    for device in devices:
        said = host.inside(place, "/opt/remote-lab/bin/netlab", "inspect", "--node", device.name, "--format", "json")
        assert json.dumps(device.raw) == json.dumps(json.loads(said.stdout))
    # Of the lab itself: the next spare is entered as well, by the thread that makes it.
    assert [command for command in entered if f" {pid} " in command and "netlab-boot" in command] == []

    wait_until(host.runner.has_spare, "there is a new spare sandbox")
    (following,) = spares(host.state_dir)
    assert following.number != spare.number
    host.runner.end_orphan(spare.lab_id)  # by who looked before the boot and acts after it
    assert host.runner.probe(place) is None
    plan = json.loads(host.inside(place, "/usr/bin/cat", "netns.json").stdout)
    assert {node["name"]: node["frr_daemons"] for node in plan["nodes"]} == {"r1": ["ospfd"], "r2": ["ospfd", "ospf6d"]}
    host.runner.stop(place)


def test_a_boot_without_a_spare_starts_one_netlab(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices come from the same process as the lab."""
    entered = count_entries(monkeypatch)
    place = host.place(SINGLE)
    host.boot(place)
    assert [command.rpartition("/")[2] for command in entered if "bin/netlab" in command] == ["netlab-boot"]
    host.runner.stop(place)


def count_entries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the commands that are run in pods from now on, as they are."""
    entered: list[str] = []

    class Counted(subprocess.Popen):  # type: ignore[type-arg]  # only watches
        def __init__(self, command: Any, *arguments: Any, **options: Any) -> None:
            if any("enter.py" in str(word) for word in command):
                entered.append(" ".join(map(str, command)))
            super().__init__(command, *arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", Counted)
    return entered


@pytest.mark.parametrize("when", ["before", "while it is taken"])
def test_a_broken_spare_does_not_matter(
    host: Host, spare: management.Claim, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """The boot goes the ordinary way, and nothing of the broken one is left."""
    pid = first_process(spare.number)
    if when == "before":
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{pid}/exe").exists(), "the spare is dead")
    else:
        rename = management.rename

        def rename_and_kill(*arguments: Any) -> None:
            rename(*arguments)
            os.kill(pid, signal.SIGKILL)

        monkeypatch.setattr(management, "rename", rename_and_kill)
    place = host.place(SINGLE)
    host.boot(place)
    assert host.pod(place).pid != pid
    assert host.runner.probe(place) is None
    assert spare.lab_id not in {claim.lab_id for claim in management.claims()}
    host.runner.stop(place)


def test_a_boot_that_ends_before_netlab_begins_leaves_the_next_spare(host: Host, spare: management.Claim) -> None:
    """It took the spare and was cancelled before it had any use for it."""
    cancel = threading.Event()
    place = host.place(SINGLE)
    with pytest.raises(LabBootCancelled):
        host.runner.boot(place, cancel=cancel, report_phase=lambda phase: cancel.set())
    wait_until(lambda: spares(host.state_dir), "the next spare sandbox is made")
    assert spare not in spares(host.state_dir)


def test_a_spare_is_no_lab(host: Host, spare: management.Claim) -> None:
    """Nobody counts it among the labs that nobody knows, and an upload that is too large to be sent leaves it alone."""
    assert spare.lab_id not in host.runner.orphans(())
    assert spares(host.state_dir) == [spare]
    place = host.place(SINGLE, large__bin="x" * 600_000)
    host.boot(place)
    assert host.pod(place).number != spare.number
    assert host.runner.has_spare()
    assert host.inside(place, "/usr/bin/wc", "-c", "large.bin").stdout.split()[0] == "600000"
    host.runner.stop(place)


@pytest.mark.parametrize("moment", ["it is made", "it is there"])
def test_a_killed_server_leaves_no_spare(tmp_path: Path, moment: str) -> None:
    """After `kill -9` the kernel ends it; what was not yet more than a number is ended by the next server."""
    command = [sys.executable, "-c", _SERVER, str(tmp_path), str(IMAGE_DIR), str(POOL)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as server:
        wait_until(lambda: spares(tmp_path), "the spare has its number")
        (claim,) = spares(tmp_path)
        if moment == "it is there":
            wait_until(lambda: is_waiting(claim.number), "netlab waits in the spare")
        server.kill()
    if moment == "it is there":
        wait_until(lambda: not spares(tmp_path), "its link is gone")
    else:
        host = Host(tmp_path, make_runner(tmp_path))
        assert host.runner.orphans(()) == []
        assert not spares(tmp_path)
    wait_until(lambda: claim.number not in {one.number for one in processes.pod_processes()}, "its processes are gone")


def is_waiting(number: int) -> bool:
    """Whether the runtime of a spare, which is forked first, has made its keys."""
    found = (one.pid for one in processes.pod_processes() if one.number == number and one.is_pid_1)
    return any(Path(f"/proc/{pid}/root/run/netns-keys").exists() for pid in found)
