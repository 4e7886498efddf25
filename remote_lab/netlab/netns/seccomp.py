"""Which system calls of a lab the kernel refuses: a table, and the small assembler that makes a filter of it.

A filter is a program of classic BPF that looks at one call at a time (seccomp(2)): the architecture, the number, and
the lower halves of the arguments. It refuses what no lab needs and where the kernel had its holes; everything else is
left to namespaces and capabilities. Numbers are those of Linux 6.1, `asm/unistd_64.h` and `asm-generic/unistd.h`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from remote_lab.netlab.netns import kernel

TYPE_CHECKING = False  # that of typing costs more than all else that is imported here
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

_LOAD, _JUMP_EQUAL, _JUMP_NOT_BELOW, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06  # linux/bpf_common.h
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000  # linux/seccomp.h
_OFFSET_NUMBER, _OFFSET_ARCHITECTURE, _OFFSET_ARGUMENTS = 0, 4, 16  # struct seccomp_data
_X32_BIT = 0x40000000
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Column of the tables below, and what the kernel calls the architecture (linux/audit.h)."""

_REFUSED: dict[str, tuple[int | None, int | None]] = {
    "_sysctl": (156, None),
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "create_module": (174, None),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "get_kernel_syms": (177, None),
    "get_mempolicy": (239, 236),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "mbind": (237, 235),
    "migrate_pages": (256, 238),
    "modify_ldt": (154, None),
    "move_pages": (279, 239),
    "nfsservctl": (180, 42),
    "open_by_handle_at": (304, 265),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "query_module": (178, None),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "sysfs": (139, None),
    "syslog": (103, 116),
    "uselib": (134, None),
    "userfaultfd": (323, 282),
    "ustat": (136, None),
    "vhangup": (153, 58),
    "vmsplice": (278, 75),
}
_UNKNOWN: dict[str, tuple[int | None, int | None]] = {
    # Its flags lie in memory, where no filter can look: programs then call clone.
    "clone3": (435, 435),
    # Programs then call mount(2), which has a tenth of the ways to go wrong.
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
}
_REFUSED_IN_NODES: dict[str, tuple[int | None, int | None]] = {
    "mount": (165, 40),
    "pivot_root": (155, 41),
    "setns": (308, 268),
    "umount2": (166, 39),
}
_CALLS: dict[str, tuple[int | None, int | None]] = {
    "clone": (56, 220),
    "ioctl": (16, 29),
    "personality": (135, 92),
    "setsockopt": (54, 208),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "unshare": (272, 97),
}
"""Calls of which some are refused, by their arguments."""

_CLONE_NEWTIME = 0x80
_NEW_NAMESPACES_OF_NODES = (
    kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET
)
_FAMILIES = {"unix": 1, "inet": 2, "inet6": 10, "netlink": 16, "packet": 17}
_INTERNET = (2, 10)
_NETLINK = {"route": 0, "sock_diag": 4, "kobject_uevent": 15, "generic": 16}
"""netfilter and xfrm are not among them: no program of the image uses them, and they are large."""
_EXOTIC_PROTOCOLS = (33, 132, 136, 262)
"""DCCP, SCTP, UDP-Lite, MPTCP."""
_SOL_IP, _SOL_IPV6 = 0, 41
_FIREWALL_OPTIONS = (64, 65, 96, 97, 128, 129)
"""SET_REPLACE and SET_ADD_COUNTERS of iptables, arptables and ebtables."""
_TERMINAL_IOCTLS = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX, which type into a terminal."""
_QUERY_PERSONALITY = 0xFFFFFFFF


class FilterUnavailable(Exception):
    """There is no filter for this machine; the message names it."""


def _step(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """Return an instruction: `struct sock_filter` of linux/filter.h."""
    return struct.pack("=HBBI", code, if_true, if_false, operand)


def build(machine: str, *, for_node: bool) -> bytes:
    """Return a filter for everything in a pod, or the narrower one for what runs in its nodes.

    Args:
        machine: as `uname(2)` says it.
        for_node: nothing there makes namespaces or mounts.
    Raises:
        FilterUnavailable: the numbers of this architecture are not known here.
    """
    if machine not in _MACHINES:
        raise FilterUnavailable(f"no filter of system calls is known for {machine!r}; labs need x86_64 or aarch64")
    column, architecture = _MACHINES[machine]
    program = [
        _step(_LOAD, _OFFSET_ARCHITECTURE),
        *_if_equal(architecture, [], otherwise=[_step(_RETURN, _KILL_PROCESS)]),
        _step(_LOAD, _OFFSET_NUMBER),
    ]
    if machine == "x86_64":
        program += [_step(_JUMP_NOT_BELOW, _X32_BIT, 0, 1), _refuse(errno.ENOSYS)]
    tables = [(_REFUSED, errno.EPERM), (_UNKNOWN, errno.ENOSYS)]
    if for_node:
        tables.append((_REFUSED_IN_NODES, errno.EPERM))
    for table, reason in tables:
        for numbers in table.values():
            if (number := numbers[column]) is not None:
                program += _if_equal(number, [_refuse(reason)])
    for name, check in _checks(for_node=for_node):
        number = _CALLS[name][column]
        if number is not None:
            program += _if_equal(number, [*check, _step(_RETURN, _ALLOW)])
    program.append(_step(_RETURN, _ALLOW))
    return b"".join(program)


def install(program: bytes) -> None:
    """Put a filter on this process and all that come of it, for good; it must have `no_new_privs`."""
    buffer = ctypes.create_string_buffer(program, len(program))
    structure = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    kernel.process_control(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, structure)


def install_for_this_machine(*, for_node: bool) -> None:
    install(build(os.uname().machine, for_node=for_node))


def _checks(*, for_node: bool) -> Iterator[tuple[str, list[bytes]]]:
    """Yield what is looked at in the arguments of a call; what falls through it is allowed."""
    namespaces = kernel.CLONE_NEWUSER | kernel.CLONE_NEWCGROUP | (_NEW_NAMESPACES_OF_NODES if for_node else 0)
    # To clone the bit of CLONE_NEWTIME is a part of the signal's number.
    yield "clone", _refuse_bits(0, namespaces)
    yield "unshare", _refuse_bits(0, namespaces | _CLONE_NEWTIME)
    yield "personality", _refuse_unless(0, (0, _QUERY_PERSONALITY), errno.EPERM)
    yield "ioctl", _refuse_values(1, _TERMINAL_IOCTLS, errno.EPERM)
    yield "socketpair", _refuse_unless(0, (_FAMILIES["unix"],), errno.EAFNOSUPPORT)
    netlink = [*_refuse_unless(2, tuple(_NETLINK.values()), errno.EPROTONOSUPPORT), _step(_RETURN, _ALLOW)]
    internet = [*_refuse_values(2, _EXOTIC_PROTOCOLS, errno.EPROTONOSUPPORT), _step(_RETURN, _ALLOW)]
    yield (
        "socket",
        [
            *_refuse_unless(0, tuple(_FAMILIES.values()), errno.EAFNOSUPPORT),
            _argument(0),
            *_if_equal(_FAMILIES["netlink"], netlink),
            *(step for family in _INTERNET for step in _if_equal(family, internet)),
        ],
    )
    options = [*_refuse_values(2, _FIREWALL_OPTIONS, errno.EPERM), _step(_RETURN, _ALLOW)]
    yield "setsockopt", [_argument(1), *(step for level in (_SOL_IP, _SOL_IPV6) for step in _if_equal(level, options))]


def _refuse(number: int) -> bytes:
    return _step(_RETURN, _ERRNO | number)


def _argument(index: int) -> bytes:
    # Lower half; both machines are little-endian. What the kernel takes as an int it cuts in the same way.
    return _step(_LOAD, _OFFSET_ARGUMENTS + 8 * index)


def _if_equal(value: int, then: Sequence[bytes], *, otherwise: Sequence[bytes] = ()) -> list[bytes]:
    """Return steps that are taken when the accumulator is a value, or else the others; one of the two is empty."""
    if otherwise:
        return [_step(_JUMP_EQUAL, value, len(otherwise), 0), *otherwise]
    return [_step(_JUMP_EQUAL, value, 0, len(then)), *then]


def _refuse_bits(index: int, bits: int) -> list[bytes]:
    return [_argument(index), _step(_AND, bits), *_if_equal(0, [], otherwise=[_refuse(errno.EPERM)])]


def _refuse_values(index: int, values: Collection[int], reason: int) -> list[bytes]:
    return [_argument(index), *(step for value in values for step in _if_equal(value, [_refuse(reason)]))]


def _refuse_unless(index: int, values: Collection[int], reason: int) -> list[bytes]:
    rest = len(values)
    jumps = [_step(_JUMP_EQUAL, value, rest - position, 0) for position, value in enumerate(values)]
    return [_argument(index), *jumps, _refuse(reason)]
