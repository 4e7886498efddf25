"""Finds and ends the processes of pods by what the kernel says of them; knows no lab.

A process belongs to pod number N when its uid lies in N's range: only root of the host can have given it that, so
nothing that runs in a pod can look like another pod or hide from its own. A server in a container on the same host has
numbers of its own, so a number may be there twice: only pods that began in our pid namespace are ours to end.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

FIRST_ID = 0x70000000
IDS_PER_POD = 0x10000
MAX_PODS = 255
_POLL_SECONDS = 0.005


def first_id(number: int) -> int:
    """Return the uid (and gid) of the host that is 0 in pod `number`."""
    return FIRST_ID + number * IDS_PER_POD


@dataclass(frozen=True)
class PodProcess:
    """A process of a pod."""

    pid: int
    number: int
    """Of its pod."""
    is_pid_1: bool
    """It is the pod's PID 1, not that of a node or of something nested."""
    is_outside: bool
    """It is in no pid namespace but ours: on its way into the pod, or waiting for what is in it."""


def pod_processes() -> Iterator[PodProcess]:
    """Yield the processes of all pods on this host."""
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (found := read_process(int(entry))):
            yield found


def read_process(pid: int) -> PodProcess | None:
    """Return the process when it lives and belongs to a pod; a zombie does not live."""
    folder = f"/proc/{pid}"
    try:
        # The folder's owner is the effective uid, whatever else (task_dump_owner() in the kernel's fs/proc/base.c): a
        # fifth of the time of its status, and most processes of a host belong to no pod.
        if not _is_pod(_number(os.stat(folder).st_uid)):
            return None
        status = Path(folder, "status").read_bytes()
    except OSError:
        return None
    fields = dict(line.split(b":", 1) for line in status.splitlines() if b":" in line)
    number = _number(int(fields[b"Uid"].split()[0]))
    if not _is_pod(number) or fields[b"State"].split()[0] in b"ZX":
        return None
    # One number per nested pid namespace, the outermost first (proc_pid_status(5)).
    numbers = fields[b"NSpid"].split()
    return PodProcess(pid, number, is_pid_1=len(numbers) == 2 and numbers[1] == b"1", is_outside=len(numbers) == 1)


def _number(uid: int) -> int:
    return (uid - FIRST_ID) // IDS_PER_POD


def _is_pod(number: int) -> bool:
    return 1 <= number <= MAX_PODS


def children(pid: int) -> list[int]:
    """Return the children of a process with one thread, as far as the kernel lists them; empty where it lists none.

    Some are left out while others end (proc_pid_task(5), `children`), so one that is listed is there, and one that is
    not may be.
    """
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_bytes().split()]
    except OSError:
        return []


def command_name(pid: int) -> str:
    """Return the first argument of a process, empty when it is gone; a process can change its own."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
    except OSError:
        return ""


def names_after(tag: str, pids: Iterable[int]) -> set[str]:
    """Return what follows a tag in the first argument of those processes that have it there."""
    names = map(command_name, pids)
    return {name.removeprefix(tag) for name in names if name.startswith(tag)}


def kill_pod(number: int, pid_1: int | None, *, holds_number: bool, deadline: float) -> list[int]:
    """Kill a pod and wait until all its processes are gone.

    Args:
        number: of the pod.
        pid_1: its PID 1; the last of a pid namespace to go (pid_namespaces(7)). None: it is dead.
        holds_number: nobody else can get the number now, so what is on its way into such a pod was meant for this one.
        deadline: by `time.monotonic()`.
    Returns:
        the pids that are still there at the deadline.
    """

    def belongs(one: PodProcess) -> bool:
        is_pid_1 = one.is_pid_1 and one.pid == pid_1
        return one.number == number and (is_pid_1 or (holds_number and one.is_outside))

    while remaining := [one for one in pod_processes() if belongs(one)]:
        if time.monotonic() > deadline:
            return [process.pid for process in remaining]
        # The end of PID 1 ends all others; the others are killed only when there is no PID 1.
        for process in [one for one in remaining if one.is_pid_1] or remaining:
            _kill(process)
        time.sleep(_POLL_SECONDS)
    return []


def _kill(process: PodProcess) -> None:
    with suppress(ProcessLookupError):
        # Between the look and the signal the pid may have become another process: hold it, look again, then signal.
        descriptor = os.pidfd_open(process.pid)
        try:
            if read_process(process.pid) == process:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)
