"""Finds and ends the keepers of this user's pods by what the kernel says of them; knows no lab.

A keeper is a process of this user that is PID 1 of a pid namespace of its own and has a tag as its last argument. What
runs in a pod has subordinate ids, so that it cannot look like one; what else this user runs could, and is trusted.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TAG_WORD = "remote-lab-pod"
_POD_DEPTH = 3
"""Of pid namespaces, the host's, the keeper's and the pod's own."""


@dataclass(frozen=True)
class Keeper:
    """A keeper that lives."""

    pid: int
    number: int
    """Of its pod."""
    owner: str
    """State tag of the server that started it."""
    lab_id: str


@dataclass(frozen=True)
class _Process:
    pid: int
    parent: int
    uid: int
    numbers: tuple[int, ...]
    """Its pids, that of the outermost namespace first (proc_pid_status(5))."""


def tag(owner: str, lab_id: str, number: int) -> str:
    return f"{TAG_WORD}:{owner}:{lab_id}:{number}"


def own_keepers() -> list[Keeper]:
    """Return the keepers of this user on this host, of all its servers."""
    return [keeper for process in _processes() if (keeper := _read_keeper(process))]


def _read_keeper(process: _Process) -> Keeper | None:
    if process.uid != os.geteuid() or len(process.numbers) != 2 or process.numbers[1] != 1:
        return None
    match last_argument(process.pid).split(":"):
        case [word, owner, lab_id, number] if word == TAG_WORD and number.isdecimal():
            return Keeper(process.pid, int(number), owner, lab_id)
    return None


def last_argument(pid: int) -> str:
    """Return the last argument of a process, empty when it is gone; one that is just written over as it was or will be.

    While it is, it may also be returned without its beginning (see `nameplate.py`).
    """
    arguments = Path(f"/proc/{pid}/cmdline")
    try:
        seen, again = arguments.read_bytes(), arguments.read_bytes()
        while seen != again:  # the kernel may have copied half of it before and half of it afterwards
            seen, again = again, arguments.read_bytes()
    except OSError:
        return ""
    return seen.rstrip(b"\0").split(b"\0")[-1].decode(errors="replace")


def keeper_of(pod: int) -> Keeper | None:
    """Return the keeper of a pod that is given by its PID 1; None when either is gone, or it is something else."""
    process = _read(pod)
    if process is None or len(process.numbers) != _POD_DEPTH or process.numbers[-1] != 1:
        return None
    parent = _read(process.parent)
    return None if parent is None else _read_keeper(parent)


def pods_of(keepers: Collection[Keeper]) -> dict[int, int]:
    """Return for each keeper's pid the PID 1 of its pod, where that lives."""
    return {parent: pid for pid, parent in _first_processes({keeper.pid for keeper in keepers}, depth=_POD_DEPTH)}


def nodes_of(pods: Collection[int]) -> list[int]:
    """Return the PID 1 of each node of pods, which are given by theirs."""
    return [pid for pid, _ in _first_processes(set(pods), depth=_POD_DEPTH + 1)]


def _first_processes(parents: Collection[int], *, depth: int) -> list[tuple[int, int]]:
    """Return the children of some processes that are PID 1 of a pid namespace so deep, each with its parent.

    Nothing below the pod's PID 1 can have the depth of a pod, or another parent than that of its own pod.
    """
    return [
        (process.pid, process.parent)
        for process in (_processes() if parents else ())
        if process.parent in parents and len(process.numbers) == depth and process.numbers[-1] == 1
    ]


def _processes() -> Iterator[_Process]:
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (process := _read(int(entry))) is not None:
            yield process


def _read(pid: int) -> _Process | None:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None  # ended meanwhile
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    if fields["State"].split()[0] in "ZX":
        return None
    numbers = tuple(int(number) for number in fields["NSpid"].split())
    return _Process(pid, int(fields["PPid"]), int(fields["Uid"].split()[0]), numbers)


def end(keeper: Keeper, *, deadline: float) -> bool:
    """Kill a keeper and wait until it and all of its pod are gone, which the kernel makes one thing.

    Args:
        keeper: as it was found.
        deadline: by `time.monotonic()`.
    Returns:
        False when it is still there at the deadline.
    """
    try:
        descriptor = os.pidfd_open(keeper.pid)
    except ProcessLookupError:
        return True
    try:
        # Between the look and the signal the pid may have become another process: hold it, look again, then signal.
        if keeper not in own_keepers():
            return True
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        # Readable when it has ended, which PID 1 of a namespace does after everything in it (pid_namespaces(7)).
        return bool(select.select([descriptor], [], [], max(deadline - time.monotonic(), 0.0))[0])
    finally:
        os.close(descriptor)
