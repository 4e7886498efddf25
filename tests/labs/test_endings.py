"""How labs end: on purpose, by failure, by violence. In every case nothing of them is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab_host import Host, make_runner

from remote_lab.errors import LabBootCancelled, LabBootFailed
from remote_lab.netlab import management, processes
from remote_lab.netlab.pod_site import state_tag
from remote_lab.netlab.runner import LabPlace

pytestmark = pytest.mark.lab

PAIR = "defaults.device: frr\nnodes: [ r1, r2 ]\nlinks: [ r1-r2 ]\n"
HANGS = f"plugin: [ hang ]\n{PAIR}"
HANGING_PLUGIN = "import time\nprint('the plugin hangs', flush=True)\ntime.sleep(600)\n"


@dataclass(frozen=True)
class Footprint:
    """What one lab has on the host, by numbers that the kernel does not give again soon."""

    pids: frozenset[int]
    namespaces: frozenset[str]
    links: frozenset[int]

    @classmethod
    def of(cls, host: Host, place: LabPlace) -> Footprint:
        pod = host.pod(place)
        assert pod.claim is not None
        pids = frozenset(process.pid for process in processes.pod_processes() if process.number == pod.number)
        listed = list_namespaces("NS,PID")
        namespaces = frozenset(line.split()[0] for line in listed if int(line.split()[1]) in pids)
        return cls(pids, namespaces, frozenset({pod.claim.index}))

    def left(self) -> Footprint:
        """Return what of it is still there."""
        listed = {line.strip() for line in list_namespaces("NS")}
        links = {link["ifindex"] for link in json.loads(output("ip", "-json", "link"))}
        pids = {process.pid for process in processes.pod_processes()}
        return Footprint(self.pids & pids, self.namespaces & listed, self.links & links)


NOTHING = Footprint(frozenset(), frozenset(), frozenset())


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def list_namespaces(columns: str) -> list[str]:
    """What lsns(8) lists; it fails when a process ends while it looks."""
    for _ in range(100):
        result = subprocess.run(["lsns", "-n", "-o", columns], capture_output=True, text=True, check=False)
        if result.returncode == 0:
            return result.stdout.splitlines()
    raise AssertionError(result.stderr)


def assert_nothing_left(host: Host, place: LabPlace) -> None:
    owner = state_tag(host.state_dir)
    assert [claim for claim in management.claims() if claim.owner == owner and claim.lab_id == place.lab_id] == []
    assert place.lab_id not in host.runner.orphans([])
    assert host.runner.probe(place) == "its sandbox is gone"


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_stop_leaves_nothing_and_is_quick(host: Host) -> None:
    """A stopped lab leaves no process, link, route, namespace or mount; stopping takes under a second."""
    files_before = sorted(host.state_dir.iterdir())
    mounts_before = Path("/proc/1/mountinfo").read_text()
    place = host.place(PAIR)
    host.boot(place)
    footprint = Footprint.of(host, place)
    assert len(footprint.pids) > 10
    assert len(footprint.namespaces) == 17  # user and cgroup; mount, pid, net, uts and ipc of the pod and of each node
    began = time.monotonic()
    host.runner.stop(place)
    assert time.monotonic() - began < 1.0
    # A namespace goes when the host's init has reaped the last process of it; nothing can be told to wait for that.
    wait_for(lambda: footprint.left() == NOTHING, seconds=60.0)
    assert Path("/proc/1/mountinfo").read_text() == mounts_before
    assert sorted({*host.state_dir.iterdir()} - {*files_before}) == sorted([place.directory, place.log])
    host.runner.stop(place)


def test_two_labs_at_once(host: Host, ssh: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Two labs run side by side, every device of both is reached, and ending one leaves the other alone."""
    one, other = host.place(PAIR), host.place(PAIR, slot=2)
    devices = [*host.boot(one), *host.boot(other)]
    assert len({device.raw["mgmt"]["ipv4"] for device in devices}) == 4
    assert [ssh(device, "hostname").stdout.strip() for device in devices] == ["r1", "r2", "r1", "r2"]
    host.runner.stop(one)
    assert host.runner.probe(other) is None
    host.runner.stop(other)


def test_killed_pod_is_noticed_and_cleaned(host: Host) -> None:
    """After `kill -9` of the pod's PID 1 the probe says so, the status is a sentence and stop cleans up."""
    place = host.place(PAIR)
    host.boot(place)
    pod = host.pod(place)
    assert pod.pid is not None
    os.kill(pod.pid, signal.SIGKILL)
    wait_for(lambda: host.runner.probe(place) == "its sandbox is gone")
    assert host.runner.status(place) == "The lab does not run: its sandbox is gone."
    host.runner.stop(place)
    assert_nothing_left(host, place)


def test_dead_daemon_dead_node_and_lost_link_are_noticed(host: Host) -> None:
    """The probe names a daemon, a node or a management link that is gone; stop cleans up all the same."""
    place = host.place(PAIR)
    host.boot(place)
    host.inside(place, "/opt/remote-lab/bin/netns-lab", "exec", "r1", "pkill", "-9", "zebra")
    assert host.runner.probe(place) == "node r1 is not running: zebra"
    host.inside(place, "/bin/sh", "-c", "pkill -9 -f ^remote-lab-node:r2")
    assert "node r2 is not running: the node" in (host.runner.probe(place) or "")
    pod = host.pod(place)
    subprocess.run(["ip", "link", "delete", f"rlab{pod.number}"], check=True)
    assert host.runner.probe(place) == "its management network interface is gone"
    assert host.runner.orphans([]) == [place.lab_id]
    host.runner.stop(place)
    assert_nothing_left(host, place)


def test_cancelled_boot_ends_at_once(host: Host) -> None:
    """A boot that nobody wants any more ends within a second and leaves nothing."""
    place = host.place(HANGS, hang__py=HANGING_PLUGIN)
    cancel = threading.Event()
    failures: list[BaseException] = []

    def boot() -> None:
        try:
            host.runner.boot(place, cancel=cancel, report_phase=lambda phase: None)
        except LabBootCancelled as error:
            failures.append(error)

    thread = threading.Thread(target=boot)
    thread.start()
    wait_for(lambda: place.log.exists() and "the plugin hangs" in place.log.read_text())
    footprint = Footprint.of(host, place)
    cancel.set()
    began = time.monotonic()
    thread.join(10)
    assert time.monotonic() - began < 1.0
    assert len(failures) == 1
    assert footprint.left().pids == frozenset()
    assert_nothing_left(host, place)


def test_boot_beyond_its_deadline_is_ended(host: Host) -> None:
    """A boot that hangs is ended at its deadline, says in which phase and shows the log."""
    place = host.place(HANGS, hang__py=HANGING_PLUGIN)
    hurried = make_runner(host.state_dir, boot_seconds=5.0)
    with pytest.raises(LabBootFailed) as failure:
        hurried.boot(place, cancel=threading.Event(), report_phase=lambda phase: None)
    assert failure.value.phase == "create"
    assert "the plugin hangs" in failure.value.log_tail
    assert_nothing_left(host, place)


def test_failed_boot_says_why_and_leaves_nothing(host: Host) -> None:
    """A topology that netlab refuses fails with netlab's own words."""
    place = host.place("defaults.device: frr\nmodule: [ no_such_module ]\nnodes: [ r1 ]\n")
    with pytest.raises(LabBootFailed) as failure:
        host.boot(place)
    assert failure.value.phase == "create"
    assert "no_such_module" in failure.value.log_tail
    assert_nothing_left(host, place)


def test_half_started_lab_is_ended_by_a_new_server(host: Host) -> None:
    """What a server that died during a boot left behind is an orphan to the next one, which ends it."""
    place = host.place(HANGS, hang__py=HANGING_PLUGIN)

    def boot() -> None:
        with pytest.raises(LabBootFailed):
            host.boot(place)

    thread = threading.Thread(target=boot)
    thread.start()
    wait_for(lambda: place.log.exists() and "the plugin hangs" in place.log.read_text())
    restarted = make_runner(host.state_dir)
    assert restarted.orphans([]) == [place.lab_id]
    restarted.end_orphan(place.lab_id)
    thread.join(10)
    assert_nothing_left(host, place)
