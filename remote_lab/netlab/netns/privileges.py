"""What a process of a lab gives up before it runs anything of the lab: capabilities, new privileges, system calls.

What it may still do is what netlab, our runtime and the daemons of the image need, found out by trying.
"""

from __future__ import annotations

import os
import resource

from remote_lab.netlab.netns import kernel, seccomp

TYPE_CHECKING = False  # that of typing costs more than all else that is imported here
if TYPE_CHECKING:
    from collections.abc import Collection

_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_LAST_CAPABILITY = "/proc/sys/kernel/cap_last_cap"

CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP = 0, 1, 3, 4, 5, 6, 7, 8
NET_BIND_SERVICE, NET_ADMIN, NET_RAW = 10, 12, 13
SYS_CHROOT, SYS_PTRACE, SYS_ADMIN = 18, 19, 21
"""Numbers of linux/capability.h; all of them count in the user namespace of the pod only."""

_OF_NODES = frozenset(
    {CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP}
    | {NET_BIND_SERVICE, NET_ADMIN, NET_RAW, SYS_CHROOT}
)
# SYS_ADMIN makes nodes and their mounts; SYS_PTRACE sees in which node a process of another user runs.
_OF_PODS = _OF_NODES | {SYS_ADMIN, SYS_PTRACE}
_INHERITED_LIMITS = (
    resource.RLIMIT_NPROC,
    resource.RLIMIT_NOFILE,
    resource.RLIMIT_DATA,
    resource.RLIMIT_CORE,
    resource.RLIMIT_MSGQUEUE,
    resource.RLIMIT_MEMLOCK,
)
_OPEN_FILES = 4096
_MESSAGE_QUEUE_BYTES = 819_200
_LOCKED_BYTES = 8 * 2**20


def node_capabilities(device: str) -> frozenset[int]:
    """Return what a node may have: FRR's daemons end at once when they are refused SYS_ADMIN (FRR 10, lib/privs.c)."""
    return _OF_NODES | {SYS_ADMIN} if device == "frr" else _OF_NODES


def set_limits(processes: int, process_mib: int) -> None:
    """Limit this process and all that come of it; must be called before the user namespace of the pod is made.

    Args:
        processes: and threads, of the whole pod: the kernel counts all that runs below a user namespace, whatever its
            uid there, against the limit of who made it, unless that is root (Linux 5.14, kernel/ucount.c).
        process_mib: memory of each process, 0 for no limit.
    """
    _limit(resource.RLIMIT_NPROC, processes)
    if process_mib:
        _limit(resource.RLIMIT_DATA, process_mib * 2**20)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_MSGQUEUE, _MESSAGE_QUEUE_BYTES)
    _limit(resource.RLIMIT_MEMLOCK, _LOCKED_BYTES)


def copy_limits(pid: int) -> None:
    """Give this process the limits of another one."""
    for which in _INHERITED_LIMITS:
        most = resource.prlimit(pid, which)[1]
        if most != resource.RLIM_INFINITY:
            _limit(which, most)


def _limit(which: int, most: int) -> None:
    held_to = resource.getrlimit(which)[1]  # which a server in a container may not raise
    most = most if held_to == resource.RLIM_INFINITY else min(most, held_to)
    resource.setrlimit(which, (most, most))


def confine_to_pod() -> None:
    """Give up what nothing in a pod needs; for who will be PID 1 or enters, when the namespaces stand."""
    _confine(_OF_PODS, for_node=False)


def confine_to_node(device: str) -> None:
    """The same for the process that will be a node, when its mounts stand."""
    _confine(node_capabilities(device), for_node=True)


def _confine(capabilities: Collection[int], *, for_node: bool) -> None:
    kernel.process_control(_PR_SET_NO_NEW_PRIVS, 1)
    # What an exec by uid 0 gives is cut to the bounding set (capabilities(7)); what is left until then does no harm.
    for number in range(_last_capability() + 1):
        if number not in capabilities:
            kernel.process_control(_PR_CAPBSET_DROP, number)
    seccomp.install_for_this_machine(for_node=for_node)


def _last_capability() -> int:
    descriptor = os.open(_LAST_CAPABILITY, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(descriptor, 16))
    finally:
        os.close(descriptor)
