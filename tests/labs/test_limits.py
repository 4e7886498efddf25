"""A lab that takes more than it may harms itself, says which limit it was, and leaves host and neighbors alone."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import wait_until
from lab_host import Host, make_runner

from remote_lab.errors import LabBootFailed
from remote_lab.netlab import cgroups, pod
from remote_lab.netlab.connector import MAX_LOG_BYTES
from remote_lab.netlab.limits import LabLimits
from remote_lab.netlab.pod import enter_command
from remote_lab.netlab.runner import LabPlace

pytestmark = pytest.mark.lab

SINGLE = "defaults.device: linux\nnodes: [ h1 ]\n"
LIMITS = LabLimits(memory_mib=400, processes=200, disk_mib=32)
MEMORY_HOG = "kept = [bytes([1]) * 2**20 for _ in range(1000)]"
OWN_TMPFS = """
import subprocess
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4g", "x", "/mnt"], check=True)
with open("/mnt/large", "wb") as stream:
    for _ in range(1000):
        stream.write(bytes(2**20))
"""
FORK_BOMB = """
import os, time
children = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(600)
        children += 1
except OSError:
    raise SystemExit(f"forked {children} times")
"""
EVERLASTING_BOMB = """
import os, time
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.3)
"""
# Prints how many processes there are when three users have started all they can.
SPREAD = """
import os, signal, sys, time
for uid in (1, 2, 3):
    if os.fork() == 0:
        os.setresuid(uid, uid, uid)
        while True:
            try:
                if os.fork() == 0:
                    time.sleep(600)
            except OSError:
                break
        time.sleep(600)
count = 0
while count != (count := sum(name.isdigit() for name in os.listdir("/proc"))):
    time.sleep(0.5)
print(count, flush=True)
os.kill(-1, signal.SIGKILL)
"""
DISK_FILLER = """
with open("/lab/large", "wb", buffering=0) as stream:
    while True:
        stream.write(bytes(2**20))
"""
INODE_FILLER = """
for number in range(10**6):
    open(f"/lab/file{number}", "w").close()
"""
FILE_HOG = """
import os
kept = []
try:
    while True:
        kept.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    raise SystemExit(f"{len(kept) // 1000} thousand files, then {error}")
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    state_dir = tmp_path_factory.mktemp("state")
    host = Host(state_dir, make_runner(state_dir, limits=LIMITS))
    host.runner.prepare()
    yield host
    for place in host.places:
        host.runner.stop(place)
    host.runner.shutdown()


@pytest.fixture(scope="module")
def neighbor(host: Host) -> LabPlace:
    place = host.place(SINGLE)
    host.boot(place)
    return place


def boot_with(host: Host, plugin: str) -> LabBootFailed:
    """Boot a lab whose plugin does something that must fail; return how."""
    place = host.place(f"plugin: [ hog ]\n{SINGLE}", hog__py=plugin)
    with pytest.raises(LabBootFailed) as failure:
        host.boot(place)
    return failure.value


@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        (MEMORY_HOG, "it used more memory than REMOTE_LAB_LAB_MEMORY_MIB=400 allows"),
        (OWN_TMPFS, "it used more memory than REMOTE_LAB_LAB_MEMORY_MIB=400 allows"),
        (FORK_BOMB, "it started more processes than REMOTE_LAB_LAB_PROCESSES=200 allows"),
        (DISK_FILLER, "it wrote more than REMOTE_LAB_LAB_DISK_MIB=32 allows"),
        (INODE_FILLER, "it wrote more than REMOTE_LAB_LAB_DISK_MIB=32 allows"),
    ],
    ids=["memory", "tmpfs", "processes", "disk", "inodes"],
)
def test_hog_fails_by_the_name_of_its_limit(host: Host, neighbor: LabPlace, plugin: str, said: str) -> None:
    """The boot fails, its reason names the setting and its value, and the lab beside it does not notice."""
    failed = boot_with(host, plugin)
    assert said in failed.reason
    assert host.runner.probe(neighbor) is None


def test_open_files_are_few_for_each_process(host: Host, neighbor: LabPlace) -> None:
    """A process that opens files without end is refused at some thousands."""
    assert "4 thousand files, then [Errno 24]" in boot_with(host, FILE_HOG).log_tail


def test_flood_of_output_does_not_fill_the_disk(host: Host) -> None:
    """A plugin that prints without end fills a log that is cut, and its lab boots."""
    place = host.place(f"plugin: [ flood ]\n{SINGLE}", flood__py='for _ in range(600_000): print("flood " * 10)')
    host.boot(place)
    assert MAX_LOG_BYTES <= place.log.stat().st_size < MAX_LOG_BYTES + 1000
    with place.log.open("rb") as log:
        assert b"the log is cut here" in log.read()[-100:]
    host.runner.stop(place)


def test_fork_bomb_ends_with_its_lab(host: Host, neighbor: LabPlace) -> None:
    """Processes that multiply as fast as they can leave room for the boot of another lab, and one stop ends them."""
    place = host.place(SINGLE)
    host.boot(place)
    pid = host.pod(place).pid
    assert pid is not None
    bomb = subprocess.Popen(enter_command(pid, ["/usr/bin/python3", "-c", EVERLASTING_BOMB]))
    try:
        wait_until(lambda: host.runner._site.exceeded(place), "the bomb has gone off")
        other = host.place(SINGLE)
        host.boot(other)
        host.runner.stop(other)
        assert host.runner.probe(neighbor) is None
    finally:
        host.runner.stop(place)
        bomb.wait()


def test_processes_are_few_without_control_groups(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no control groups, all processes of a lab still count together, whatever their users."""
    monkeypatch.setattr(cgroups, "find", dict)
    place = host.place("x: y\n")
    host.runner._site.open(place)
    counted = host.inside(place, "/usr/bin/python3", "-c", SPREAD)
    assert 150 <= int(counted.stdout) <= LIMITS.processes, counted.stderr
    host.runner.stop(place)


def test_control_groups_go_with_the_lab(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lab that ended leaves no group; one that nobody has a number for goes when the reaper saw it for a while."""
    place = host.place("x: y\n")
    host.runner._site.open(place)
    name = f"rlab{host.pod(place).number}"
    folders = [groups.parent for groups in cgroups.find().values()]
    assert [(folder / name).is_dir() for folder in folders] == [True] * len(folders)
    host.runner.stop(place)
    cgroups.make("rlab99999", {cgroups.MEMORY: 2**30, cgroups.PROCESSES: 10})
    for seconds_later in (0.0, pod.UNUSED_SECONDS + 1):
        now = time.monotonic() + seconds_later
        with monkeypatch.context() as patch:
            patch.setattr(pod.time, "monotonic", lambda now=now: now)
            host.runner.orphans([known.lab_id for known in host.places])
    assert [path for folder in folders for path in (folder / "rlab99999", folder / name) if _is_left(path)] == []


def _is_left(path: Path) -> bool:
    # The number may be another server's by now.
    return path.is_dir() and not (path / "cgroup.procs").read_text()
