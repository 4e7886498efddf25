"""Where control groups of labs are made, on hosts that this one is not: a tree of files stands in for the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from remote_lab.netlab import cgroups

LIMITS = {cgroups.MEMORY: 2**30, cgroups.PROCESSES: 500}


@pytest.fixture
def v2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with cgroup v2 alone; this process is in a unit of systemd."""
    root = tmp_path / "cgroup"
    unit = root / "system.slice/remote-lab.service"
    unit.mkdir(parents=True)
    (root / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (root / "cgroup.subtree_control").write_text("memory pids\n")
    (unit / "cgroup.procs").write_text("11\n12\n")
    mount = cgroups._Mount(2, root, "/", frozenset({"cpu", "memory", "pids"}))
    monkeypatch.setattr(cgroups, "_mounts", lambda: iter([mount]))
    monkeypatch.setattr(cgroups, "_paths_of", lambda pid: {"": "/system.slice/remote-lab.service"})
    return root


def enable(parent: Path) -> None:
    """Do what the kernel does: what was asked for with a plus is listed without."""
    control = parent / "cgroup.subtree_control"
    assert control.read_text() == "+memory +pids"
    control.write_text("memory pids\n")


def test_delegated_unit_holds_its_labs(v2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a unit with Delegate= the server moves into a leaf, because groups with children hold no processes."""
    unit = v2 / "system.slice/remote-lab.service"
    monkeypatch.setattr(cgroups, "_is_delegated", lambda group: group == unit)
    (unit / "cgroup.subtree_control").write_text("")
    cgroups.prepare()
    assert (unit / "server/cgroup.procs").read_text() == "12"  # the last of them; each is a write of its own
    enable(unit)
    joins = cgroups.make("rlab3", LIMITS)
    group = unit / "rlab3"
    assert joins == [str(group / "cgroup.procs")]
    assert ((group / "memory.max").read_text(), (group / "pids.max").read_text()) == (str(2**30), "500")


def test_server_that_was_moved_finds_its_unit_again(v2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart, when it starts in the leaf, the groups lie where they lay."""
    unit = v2 / "system.slice/remote-lab.service"
    monkeypatch.setattr(cgroups, "_is_delegated", lambda group: group == unit)
    (unit / "cgroup.subtree_control").write_text("memory pids\n")
    (unit / "server").mkdir()
    monkeypatch.setattr(cgroups, "_paths_of", lambda pid: {"": "/system.slice/remote-lab.service/server"})
    assert {groups.parent for groups in cgroups.find().values()} == {unit}


def test_unit_that_is_not_delegated_is_left_to_systemd(v2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then labs have a group of their own at the top."""
    monkeypatch.setattr(cgroups, "_is_delegated", lambda group: False)
    cgroups.prepare()
    enable(v2 / "remote-lab")
    assert cgroups.make("rlab3", LIMITS) == [str(v2 / "remote-lab/rlab3/cgroup.procs")]
    assert [path.name for path in (v2 / "system.slice/remote-lab.service").iterdir()] == ["cgroup.procs"]


def test_kernel_says_what_was_hit(v2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that were killed for memory and forks that were refused are counted."""
    monkeypatch.setattr(cgroups, "_is_delegated", lambda group: False)
    cgroups.prepare()
    enable(v2 / "remote-lab")
    cgroups.make("rlab3", LIMITS)
    assert cgroups.hits("rlab3") == {}
    (v2 / "remote-lab/rlab3/memory.events").write_text("low 0\nhigh 0\nmax 91\noom 1\noom_kill 2\n")
    (v2 / "remote-lab/rlab3/pids.events").write_text("max 0\n")
    assert cgroups.hits("rlab3") == {cgroups.MEMORY: 2, cgroups.PROCESSES: 0}


def test_host_without_control_groups_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor says which limit does not hold, and what to do."""
    monkeypatch.setattr(cgroups, "_mounts", lambda: iter(()))
    assert cgroups.make("rlab3", LIMITS) == []
    memory, processes = cgroups.describe()
    assert (memory[0], memory[1], processes[0], processes[1]) == ("memory limit", False, "process limit", True)
    assert "as root on the host" in memory[3]
