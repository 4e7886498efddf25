"""Control groups of labs: memory and number of processes, with cgroup v2 or v1, wherever this host has them.

A lab's group has the name of its management link, so it belongs to whoever has that number, and lies

- in the server's own unit, when systemd delegated that to it (`Delegate=`, systemd.resource-control(5)),
- otherwise in a group `remote-lab` below the root of the hierarchy.

Nothing is kept in files of ours; a group without a lab is removed when it is seen.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MEMORY, PROCESSES = "memory", "pids"
_PARENT = "remote-lab"
_SERVER = "server"
_JOIN = "cgroup.procs"
_SUBTREE = "cgroup.subtree_control"
_LAB = re.compile(r"rlab[0-9]+")
_DELEGATED = ("trusted.delegate", "user.delegate")
_REMOVE_SECONDS = 0.2
_RETRIES = 3


@dataclass(frozen=True)
class _Controller:
    limit: str
    """File that takes the limit."""
    others: Mapping[str, str | None]
    """Further files -> what they take, None for the limit; a kernel may lack them."""
    events: str
    """File in which the kernel counts."""
    hit: str
    """Its line that counts how often the limit was hit."""


_FILES: Mapping[int, Mapping[str, _Controller]] = {
    # admin-guide/cgroup-v2.rst. One process that is killed leaves half a lab: better all of it ends, with its reason.
    2: {
        MEMORY: _Controller(
            "memory.max", {"memory.swap.max": "0", "memory.oom.group": "1"}, "memory.events", "oom_kill"
        ),
        PROCESSES: _Controller("pids.max", {}, "pids.events", "max"),
    },
    # admin-guide/cgroup-v1/memory.rst; memsw is memory and swap together.
    1: {
        MEMORY: _Controller(
            "memory.limit_in_bytes", {"memory.memsw.limit_in_bytes": None}, "memory.oom_control", "oom_kill"
        ),
        PROCESSES: _Controller("pids.max", {}, "pids.events", "max"),
    },
}


@dataclass(frozen=True)
class _Mount:
    """A hierarchy that this process sees."""

    version: int
    place: Path
    root: str
    """Which of its groups is mounted there."""
    controllers: frozenset[str]


@dataclass(frozen=True)
class Groups:
    """Where a controller's groups of labs lie on this host."""

    version: int
    controller: str
    parent: Path


def prepare() -> None:
    """Make room for groups of labs, as far as this host lets us; a server does it once, before any lab."""
    for mount in _mounts():
        wanted = {MEMORY, PROCESSES} & mount.controllers
        if mount.version == 1:
            for _ in wanted:
                with suppress(OSError):
                    (mount.place / _PARENT).mkdir(exist_ok=True)
        elif wanted:
            _prepare_v2(mount, wanted)


def find() -> dict[str, Groups]:
    """Return where the groups of labs lie by controller; what is not there cannot be had."""
    found: dict[str, Groups] = {}
    for mount in _mounts():
        parent = _parent(mount)
        enabled = mount.controllers if mount.version == 1 else _words(parent / _SUBTREE)
        for controller in (MEMORY, PROCESSES):
            if controller in mount.controllers & enabled and os.access(parent, os.W_OK):
                found.setdefault(controller, Groups(mount.version, controller, parent))
    return found


def describe() -> list[tuple[str, bool, str, str]]:
    """Return how labs are held to their memory and processes here: name, whether they are, how, and what to do."""
    found = find()
    can_be = {controller: mount for mount in _mounts() for controller in mount.controllers if _can_be_made(mount)}
    remedy = "Run the server as root on the host itself, where it can make control groups with the memory controller."
    described = []
    for controller, name in ((MEMORY, "memory limit"), (PROCESSES, "process limit")):
        if groups := found.get(controller):
            described.append((name, True, f"cgroup v{groups.version}, {groups.parent}", ""))
        elif controller in can_be:
            described.append((name, True, f"cgroup v{can_be[controller].version}, made when the server starts", ""))
        elif controller == PROCESSES:
            described.append((name, True, "RLIMIT_NPROC; no control group of its own", ""))
        else:
            detail = "no control group can be had: each process is held to the limit, their sum and files are not"
            described.append((name, False, detail, remedy))
    return described


def _can_be_made(mount: _Mount) -> bool:
    parent = _parent(mount)
    return os.access(parent.parent if parent.name == _PARENT else parent, os.W_OK)


def make(name: str, limits: Mapping[str, int]) -> list[str]:
    """Make the group of a lab with its limits.

    Args:
        name: of its management link.
        limits: `MEMORY` -> bytes, `PROCESSES` -> number.
    Returns:
        the files through which a process joins it, one for each hierarchy.
    Raises:
        OSError: the kernel refuses it.
    """
    joins: dict[str, None] = {}
    found = find()
    for parent in {groups.parent for groups in found.values()}:
        _remove(parent / name)  # what a lab that died left goes on counting where it was
    for controller, groups in found.items():
        group = groups.parent / name
        for left in reversed(range(_RETRIES)):
            try:
                _make(group, _FILES[groups.version][controller], limits[controller])
                break
            except FileNotFoundError:  # another server swept it, because it was not in use yet
                if not left:
                    raise
        joins[str(group / _JOIN)] = None
    return list(joins)


def _make(group: Path, files: _Controller, limit: int) -> None:
    group.mkdir(exist_ok=True)
    (group / files.limit).write_text(str(limit))
    for name, value in files.others.items():
        if (group / name).exists():
            (group / name).write_text(value or str(limit))


def joins_of(pid: int) -> list[str]:
    """Return the files through which a process joins the groups of a lab's process; none where it has no such group."""
    joins: dict[str, None] = {}
    paths = _paths_of(pid)
    for mount in _mounts():
        for controller in (MEMORY, PROCESSES):
            path = paths.get("" if mount.version == 2 else controller, "")
            if controller in mount.controllers and _LAB.fullmatch(path.rpartition("/")[2]):
                joins[str(_below(mount, path) / _JOIN)] = None
    return list(joins)


def hits(name: str) -> dict[str, int]:
    """Return by controller how often a lab hit its limit, and the kernel refused it something or killed it for it."""
    counts = {}
    for controller, groups in find().items():
        files = _FILES[groups.version][controller]
        with suppress(OSError, ValueError):
            lines = (groups.parent / name / files.events).read_text().splitlines()
            counts[controller] = int(dict(line.split() for line in lines).get(files.hit, "0"))
    return counts


def remove(name: str) -> None:
    """Remove the group of a lab whose processes are gone; one that the kernel still holds is left to `sweep`."""
    deadline = time.monotonic() + _REMOVE_SECONDS
    for groups in find().values():
        while not _remove(groups.parent / name) and time.monotonic() < deadline:
            time.sleep(0.005)


def sweep(unused: Iterable[str]) -> None:
    """Remove groups that nobody has a number for, of those that `names` returned."""
    doomed = list(unused)
    for groups in find().values():
        for name in doomed:
            _remove(groups.parent / name)


def names() -> set[str]:
    """Return the names of the groups of labs that are there, of all servers."""
    return {
        entry for groups in find().values() for entry in os.listdir(groups.parent) if _LAB.fullmatch(entry) is not None
    }


def _remove(group: Path) -> bool:
    """Return whether it is gone."""
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def _prepare_v2(mount: _Mount, wanted: Collection[str]) -> None:
    parent = _parent(mount)
    enable = " ".join(f"+{controller}" for controller in sorted(wanted))
    with suppress(OSError):
        if parent.name == _PARENT:
            (mount.place / _SUBTREE).write_text(enable)
            parent.mkdir(exist_ok=True)
        else:
            # Processes live in leaves only (cgroups(7), "no internal processes"): the server moves into one of its own.
            (parent / _SERVER).mkdir(exist_ok=True)
            for pid in (parent / _JOIN).read_text().split():
                with suppress(ProcessLookupError):
                    (parent / _SERVER / _JOIN).write_text(pid)
        (parent / _SUBTREE).write_text(enable)


def _parent(mount: _Mount) -> Path:
    if mount.version == 1:
        return mount.place / _PARENT
    own = _below(mount, _paths_of(os.getpid()).get("", "/"))
    for group in (own, own.parent):
        if group.is_relative_to(mount.place) and _is_delegated(group):
            return group
    return mount.place / _PARENT


def _is_delegated(group: Path) -> bool:
    for attribute in _DELEGATED:
        with suppress(OSError):
            return os.getxattr(group, attribute) == b"1"
    return False


def _below(mount: _Mount, path: str) -> Path:
    """Return the folder of a group; in a container only a part of the hierarchy is mounted."""
    inside = path.removeprefix(mount.root) if mount.root != "/" else path
    return mount.place / inside.lstrip("/")


def _paths_of(pid: int) -> dict[str, str]:
    """Return the groups of a process by controller; "" is that of cgroup v2. Empty when it is gone."""
    found: dict[str, str] = {}
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            found |= dict.fromkeys(controllers.split(","), path)
    return found


def _mounts() -> Iterator[_Mount]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # Fields before the dash vary in number (proc_pid_mountinfo(5)).
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        _, _, _, root, place, *_ = before.split()
        if kind == "cgroup2":
            yield _Mount(2, Path(place), root, frozenset(_words(Path(place) / "cgroup.controllers")))
        elif kind == "cgroup":
            yield _Mount(1, Path(place), root, frozenset(options.split(" ")[-1].split(",")))


def _words(path: Path) -> set[str]:
    try:
        return set(path.read_text().split())
    except OSError:
        return set()
