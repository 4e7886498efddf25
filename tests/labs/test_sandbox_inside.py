"""What code of a lab may ask of the kernel, what it sees of the host, and what it can make the server believe."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import wait_until
from lab_host import Host

from remote_lab.netlab import pod_site
from remote_lab.netlab.pod import enter_command
from remote_lab.netlab.runner import Device, LabPlace

pytestmark = pytest.mark.lab

ENVIRONMENT = {"PATH": "/opt/remote-lab/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
TOPOLOGY = "nodes: { h1: { device: linux }, r1: { device: frr } }\nlinks: [ h1-r1 ]\n"
# Asks for what a lab must not have and prints {NAME: errno, or 0 where the kernel gave it}.
_ASK = """
import ctypes, fcntl, json, os, socket, termios
libc = ctypes.CDLL(None, use_errno=True)
asked = {}
def ask(name, call):
    try:
        result = call()
    except OSError as error:
        asked[name] = error.errno
        return
    asked[name] = ctypes.get_errno() if isinstance(result, int) and result < 0 else 0
syscall = libc.syscall
arm = os.uname().machine == "aarch64"
ask("user namespace", lambda: libc.unshare(0x10000000))
ask("cgroup namespace", lambda: libc.unshare(0x02000000))
ask("user namespace by clone", lambda: syscall(220 if arm else 56, 0x10000000 | 17, 0, 0, 0, 0))
ask("clone3", lambda: syscall(435, 0, 0))
ask("bpf", lambda: syscall(280 if arm else 321, 0, 0, 0))
ask("perf_event_open", lambda: syscall(241 if arm else 298, 0, 0, 0, 0, 0))
ask("userfaultfd", lambda: syscall(282 if arm else 323, 1))
ask("io_uring_setup", lambda: syscall(425, 1, 0))
ask("keyctl", lambda: syscall(219 if arm else 250, 0, -3, 0))
ask("open_by_handle_at", lambda: syscall(265 if arm else 304, -1, 0, 0))
ask("ptrace", lambda: syscall(117 if arm else 101, 0, 0, 0, 0))
ask("fsopen", lambda: syscall(430, 0, 0))
ask("personality", lambda: libc.personality(0x0040000))
ask("TIOCSTI", lambda: fcntl.ioctl(os.openpty()[1], termios.TIOCSTI, b"x"))
ask("AF_ALG", lambda: socket.socket(38, socket.SOCK_SEQPACKET))
ask("AF_VSOCK", lambda: socket.socket(40, socket.SOCK_STREAM))
ask("netfilter", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12))
ask("SCTP", lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132))
ask("iptables", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 255).setsockopt(0, 64, b"x" * 64))
for name in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/panic"):
    ask(name, lambda: open(name, "w"))
print(json.dumps(asked))
"""
_REFUSED = {
    "user namespace": 1,
    "cgroup namespace": 1,
    "user namespace by clone": 1,
    "clone3": 38,
    "bpf": 1,
    "perf_event_open": 1,
    "userfaultfd": 1,
    "io_uring_setup": 1,
    "keyctl": 1,
    "open_by_handle_at": 1,
    "ptrace": 1,
    "fsopen": 38,
    "personality": 1,
    "TIOCSTI": 1,
    "AF_ALG": 97,
    "AF_VSOCK": 97,
    "netfilter": 93,
    "SCTP": 93,
    "iptables": 1,
    "/proc/sys/kernel/core_pattern": 13,
    "/proc/sys/kernel/panic": 13,
}
# int 0x80 is a system call of another architecture, with numbers of its own.
_OTHER_ARCHITECTURE = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("b814000000cd80c3"))
print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))())
"""


@pytest.fixture(scope="module")
def booted(host: Host) -> tuple[LabPlace, list[Device]]:
    place = host.place(TOPOLOGY)
    return place, host.boot(place)


@pytest.fixture
def lab(booted: tuple[LabPlace, list[Device]]) -> LabPlace:
    return booted[0]


@pytest.fixture
def devices(booted: tuple[LabPlace, list[Device]]) -> list[Device]:
    return booted[1]


@pytest.mark.parametrize(
    "where",
    [(), ("netns-lab", "exec", "h1"), ("netns-lab", "exec", "r1")],
    ids=["pod", "linux", "frr"],
)
def test_kernel_refuses_what_no_lab_needs(host: Host, lab: LabPlace, where: tuple[str, ...]) -> None:
    """Namespaces of users, ways into other processes, exotic sockets and the settings of the host are out of reach."""
    found = host.inside(lab, "/usr/bin/env", *where, "python3", "-c", _ASK)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout) == _REFUSED


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="only this machine has a second kind of system calls")
def test_other_architecture_is_killed(host: Host, lab: LabPlace) -> None:
    """A system call with the numbers of another architecture, which a filter could mistake, ends the process."""
    found = host.inside(lab, "/usr/bin/python3", "-c", _OTHER_ARCHITECTURE)
    assert (found.stdout, found.returncode) == ("", 128 + signal.SIGSYS)


def test_who_logs_in_to_a_device_cannot_mount(
    devices: list[Device], ssh: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """Root of a device makes no mounts and no namespaces, on FRR either, whose daemons insist on the capability."""
    for device in devices:
        found = ssh(device, "mount -t tmpfs x /mnt; echo $?; unshare --net true; echo $?; ip link show eth0 | wc -l")
        assert found.stdout == "32\n1\n2\n", found.stderr


def test_entered_command_is_held_like_the_pod(host: Host, lab: LabPlace) -> None:
    """What is run in a pod from outside has the limits, groups, capabilities and filters of its PID 1."""
    for name in ("limits", "cgroup"):
        mine, first = (host.inside(lab, "/usr/bin/cat", f"/proc/{who}/{name}").stdout for who in ("self", "1"))
        assert mine == first
    statuses = [host.inside(lab, "/usr/bin/cat", f"/proc/{who}/status").stdout for who in ("self", "1")]
    kept = ("Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp")
    mine, first = (["".join(line.split()) for line in text.splitlines() if line.startswith(kept)] for text in statuses)
    assert mine == first
    assert "NoNewPrivs:1" in mine


def test_nothing_of_the_server_comes_along(host: Host, lab: LabPlace, tmp_path: Path) -> None:
    """Open files and variables of who enters stay outside."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    with secret.open() as stream:
        pid = host.pod(lab).pid
        assert pid is not None
        found = subprocess.run(
            enter_command(pid, ["/bin/sh", "-c", "ls /proc/self/fd; env | sort; id -u; id -G"]),
            capture_output=True,
            text=True,
            env=ENVIRONMENT,
            pass_fds=(stream.fileno(),),
            check=True,
        )
    expected = ["0", "1", "2", "3", "HOME=/root", "LANG=C.UTF-8", f"PATH={ENVIRONMENT['PATH']}", "PWD=/lab", "0", "0"]
    assert [line for line in found.stdout.splitlines() if not line.startswith(("OLDPWD", "_="))] == expected


def test_command_ends_with_who_waits_for_it(host: Host, lab: LabPlace) -> None:
    """kill -9 of the process outside ends the command inside; its exit status comes through otherwise."""
    assert host.inside(lab, "/bin/sh", "-c", "exit 7").returncode == 7
    assert host.inside(lab, "/bin/sh", "-c", "kill -9 $$").returncode == 128 + signal.SIGKILL
    assert host.inside(lab, "/no/such/command").returncode == 125
    pid = host.pod(lab).pid
    assert pid is not None
    process = subprocess.Popen(enter_command(pid, ["/usr/bin/sleep", "618"]), env=ENVIRONMENT)
    running = ["/usr/bin/pgrep", "-f", "^/usr/bin/sleep 618"]
    try:
        wait_until(lambda: host.inside(lab, *running).stdout, "the command runs")
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not host.inside(lab, *running).stdout, "the command has ended")


def test_directory_of_the_lab_stays_as_it_was_uploaded(host: Host, lab: LabPlace) -> None:
    """What netlab and the lab write to their directory is never on the host."""
    assert host.inside(lab, "/bin/sh", "-c", "ls /lab/netns.json && echo planted > /lab/topology.yml").returncode == 0
    found = {path.name: path.read_text() for path in lab.directory.iterdir()}
    assert found == {"topology.yml": TOPOLOGY}


@pytest.mark.parametrize(
    "trick",
    [
        "ln -s /proc/1/environ {key}",
        "mkfifo {key}",
        "ln -s /dev/zero {key}",
        "touch {key}; mount --bind /proc/version {key}",
        "yes > {key} & sleep 0.2; kill $!",
    ],
    ids=["link", "fifo", "endless", "mount", "large"],
)
def test_login_key_is_a_key_or_nothing(host: Host, lab: LabPlace, trick: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a lab puts in the place of its key, the server neither hangs nor passes it on."""
    monkeypatch.setattr(pod_site, "_READ_SECONDS", 1.0)
    assert (host.runner.login_key(lab) or "").startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    key = "/lab/netns_files/id_ed25519"
    assert host.inside(lab, "/bin/sh", "-c", f"mv {key} {key}.kept; {trick.format(key=key)}").returncode == 0
    try:
        assert host.runner.login_key(lab) is None
    finally:
        host.inside(lab, "/bin/sh", "-c", f"umount {key}; rm -f {key}; mv {key}.kept {key}")
