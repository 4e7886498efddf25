"""The filters of system calls, run by an interpreter of their few instructions; real pods run them in tests/labs."""

from __future__ import annotations

import errno
import struct

import pytest

from remote_lab.netlab.netns import seccomp

ALLOWED, KILLED = "allowed", "killed"
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003}
NEWUSER, NEWNET, THREAD = 0x10000000, 0x40000000, 0x3D0F00


def verdict(program: bytes, architecture: str, number: int, *arguments: int) -> str | int:
    """Run a filter on one call; returns the errno it answers with, or a word."""
    data = struct.pack("=IIQ6Q", number, ARCHITECTURES[architecture], 0, *(*arguments, *[0] * 6)[:6])
    steps = list(struct.iter_unpack("=HBBI", program))
    position = accumulator = 0
    while True:
        code, if_true, if_false, operand = steps[position]
        position += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, operand)
            case 0x54:
                accumulator &= operand
            case 0x15:
                position += if_true if accumulator == operand else if_false
            case 0x35:
                position += if_true if accumulator >= operand else if_false
            case 0x06 if operand == 0x7FFF0000:
                return ALLOWED
            case 0x06 if operand == 0x80000000:
                return KILLED
            case 0x06:
                assert operand >> 16 == 5
                return operand & 0xFFFF
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")


# What -> number on x86_64, on aarch64, arguments, verdict in a pod, verdict in a node.
CALLS = {
    "read": (0, 63, (), ALLOWED, ALLOWED),
    "execve": (59, 221, (), ALLOWED, ALLOWED),
    "thread": (56, 220, (THREAD,), ALLOWED, ALLOWED),
    "fork": (56, 220, (17,), ALLOWED, ALLOWED),
    "user namespace": (272, 97, (NEWUSER,), errno.EPERM, errno.EPERM),
    "user namespace by clone": (56, 220, (NEWUSER | 17,), errno.EPERM, errno.EPERM),
    "network namespace": (272, 97, (NEWNET,), ALLOWED, errno.EPERM),
    "files unshared": (272, 97, (0x400,), ALLOWED, ALLOWED),
    "mount": (165, 40, (), ALLOWED, errno.EPERM),
    "setns": (308, 268, (), ALLOWED, errno.EPERM),
    "clone3": (435, 435, (), errno.ENOSYS, errno.ENOSYS),
    "bpf": (321, 280, (), errno.EPERM, errno.EPERM),
    "TIOCSTI": (16, 29, (0, 0x5412), errno.EPERM, errno.EPERM),
    "TIOCSTI with high bits": (16, 29, (0, 0xFF00005412), errno.EPERM, errno.EPERM),
    "window size": (16, 29, (0, 0x5413), ALLOWED, ALLOWED),
    "personality of Linux": (135, 92, (0,), ALLOWED, ALLOWED),
    "personality query": (135, 92, (0xFFFFFFFF,), ALLOWED, ALLOWED),
    "personality without random addresses": (135, 92, (0x40000,), errno.EPERM, errno.EPERM),
    "UNIX socket": (41, 198, (1, 1, 0), ALLOWED, ALLOWED),
    "TCP": (41, 198, (2, 1, 6), ALLOWED, ALLOWED),
    "TCP over IPv6": (41, 198, (10, 1, 0), ALLOWED, ALLOWED),
    "SCTP over IPv6": (41, 198, (10, 1, 132), errno.EPROTONOSUPPORT, errno.EPROTONOSUPPORT),
    "routes": (41, 198, (16, 3, 0), ALLOWED, ALLOWED),
    "generic netlink": (41, 198, (16, 3, 16), ALLOWED, ALLOWED),
    "netfilter": (41, 198, (16, 3, 12), errno.EPROTONOSUPPORT, errno.EPROTONOSUPPORT),
    "packets": (41, 198, (17, 3, 0x300), ALLOWED, ALLOWED),
    "vsock": (41, 198, (40, 1, 0), errno.EAFNOSUPPORT, errno.EAFNOSUPPORT),
    "socket pair": (53, 199, (1, 1, 0), ALLOWED, ALLOWED),
    "socket pair of TIPC": (53, 199, (30, 1, 0), errno.EAFNOSUPPORT, errno.EAFNOSUPPORT),
    "iptables": (54, 208, (3, 0, 64), errno.EPERM, errno.EPERM),
    "ip6tables": (54, 208, (3, 41, 64), errno.EPERM, errno.EPERM),
    "IP_TTL": (54, 208, (3, 0, 2), ALLOWED, ALLOWED),
    "option 64 of sockets": (54, 208, (3, 1, 64), ALLOWED, ALLOWED),
}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("what", CALLS)
def test_verdict(machine: str, what: str) -> None:
    """Each call gets its verdict on each architecture, in pods and in nodes."""
    of_x86, of_arm, arguments, in_pod, in_node = CALLS[what]
    number = of_x86 if machine == "x86_64" else of_arm
    found = [verdict(seccomp.build(machine, for_node=node), machine, number, *arguments) for node in (False, True)]
    assert found == [in_pod, in_node]


def test_other_architectures_have_no_say() -> None:
    """Calls by the numbers of i386 end the process, those of x32 are unknown."""
    program = seccomp.build("x86_64", for_node=False)
    assert verdict(program, "i386", 20) == KILLED
    assert verdict(program, "x86_64", 0x40000000 | 59) == errno.ENOSYS


def test_unknown_machine_is_named() -> None:
    """Without a filter no lab starts."""
    with pytest.raises(seccomp.FilterUnavailable, match="riscv64"):
        seccomp.build("riscv64", for_node=False)
