"""One node: its namespaces, its root, its address and its services. Links between nodes are made in `links.py`.

A node is a net, mount, uts, ipc and pid namespace in the pod. Its PID 1 prepares everything, then becomes `sleep`.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from remote_lab.netlab.netns import kernel, privileges
from remote_lab.netlab.netns.lab import NODE_TAG, Node, NodeState, Plan
from remote_lab.netlab.netns.rootfs import RootFile, enter_new_root

_IMAGE = Path("/image")
_SCRATCH = Path("/mnt")
_TMPFS_MIB = 64
_INIT = "/usr/bin/sleep"
_FRR = Path("/usr/lib/frr")
_PAM_OF_VTYSH = b"auth sufficient pam_permit.so\naccount sufficient pam_permit.so\n"
_FRR_RUN = Path("/run/frr")
_FRR_FIRST = ("mgmtd", "zebra")
_FRR_ALWAYS = ("mgmtd", "zebra", "staticd")
_LOG = Path("/var/log/node.log")
_SERVICE_SECONDS = 30.0
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}


class NodeError(Exception):
    """A node did not start; the message names the node and the reason."""


@dataclass(frozen=True)
class Credentials:
    """What lets a user into every node of a lab."""

    password_hash: str
    public_key: str
    host_key: bytes


@dataclass(eq=False)
class StartingNode:
    """A node on its way: its namespaces are made, then its root, then it waits for its links."""

    node: Node
    _child: int
    _said: TextIOWrapper
    _go: TextIOWrapper
    pid: int = 0
    """Its PID 1, from `settle` on."""

    def settle(self) -> None:
        """Return when its namespaces are there.

        Raises:
            NodeError: they are not.
        """
        self.pid = int(_expect(self._said, self.node, "pid "))
        os.waitpid(self._child, 0)

    def fileno(self) -> int:
        """For `select`: readable when `wait` does not block."""
        return self._said.fileno()

    def finish(self) -> None:
        """Let it go on, now that its links are there."""
        self._go.write("go\n")
        self._go.close()

    def wait(self) -> NodeState:
        """Return when its services answer.

        Raises:
            NodeError: they do not.
        """
        services = _expect(self._said, self.node, "services ")
        self._said.close()
        return NodeState(self.pid, services.split())


def start(node: Node, plan: Plan, credentials: Credentials) -> StartingNode:
    """Begin to make a node; it is built while the caller goes on."""
    said_read, said_write = os.pipe()
    go_read, go_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(said_read)
        os.close(go_write)
        _run_child(node, plan, credentials, said_write, go_read)
    os.close(said_write)
    os.close(go_read)
    return StartingNode(node, child, os.fdopen(said_read), os.fdopen(go_write, "w"))


def _expect(said: TextIOWrapper, node: Node, prefix: str) -> str:
    line = said.readline().strip()
    if not line.startswith(prefix):
        raise NodeError(f"node {node.name} did not start: {line or 'it ended without a word'}")
    return line.removeprefix(prefix)


def _run_child(node: Node, plan: Plan, credentials: Credentials, said: int, go: int) -> NoReturn:
    try:
        kernel.unshare(
            kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET
        )
        pid = os.fork()
        if pid:
            os.write(said, f"pid {pid}\n".encode())
            os._exit(0)
        _become_pid_1(node, plan, credentials, said, go)
    except BaseException as error:  # noqa: BLE001 - last words of a forked process, which must never return
        os.write(said, f"{type(error).__name__}: {error}\n".encode())
    os._exit(1)


def _become_pid_1(node: Node, plan: Plan, credentials: Credentials, said: int, go: int) -> NoReturn:
    os.setsid()
    os.umask(0o022)
    kernel.stop_mount_propagation()
    files = _files(node, plan, credentials)
    enter_new_root(_SCRATCH, _IMAGE, binds={}, overlays={}, files=files, tmpfs_mib=_TMPFS_MIB)
    socket.sethostname(node.name)
    kernel.bring_loopback_up()
    privileges.confine_to_node(node.device)
    os.chdir("/root")
    null = os.open("/dev/null", os.O_RDONLY)
    log = os.open(_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for source, standard in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, standard)
    if not os.read(go, 16):
        os._exit(1)
    _add_management_addresses(node)
    services = [_start_ssh_server()]
    if node.device == "frr":
        services += _start_frr(node.frr_daemons)
    os.write(said, f"services {' '.join(dict.fromkeys(services))}\n".encode())
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.execve(_INIT, [NODE_TAG + node.name, "infinity"], ENVIRONMENT)  # noqa: S606


def _files(node: Node, plan: Plan, credentials: Credentials) -> dict[str, RootFile]:
    hosts = "\n".join(["127.0.0.1 localhost", "::1 localhost", *plan.hosts, ""])
    passwd = (_IMAGE / "etc/passwd").read_text().splitlines()
    users = [line for line in passwd if not line.startswith("root:")]
    files = {
        "/etc/hosts": hosts,
        "/etc/hostname": f"{node.name}\n",
        "/etc/resolv.conf": "",
        "/etc/passwd": "\n".join(["root:x:0:0:root:/root:/bin/bash", *users, ""]),
        "/root/.ssh/authorized_keys": f"{credentials.public_key}\n",
    }
    found = {name: RootFile(text.encode()) for name, text in files.items()}
    found["/etc/shadow"] = RootFile(f"root:{credentials.password_hash}:20000:0:99999:7:::\n".encode(), 0o600)
    # Debian's asks `unix_chkpwd` about root's account, a process for each vtysh; only root is in a node.
    found["/etc/pam.d/frr"] = RootFile(_PAM_OF_VTYSH)
    found["/etc/dropbear/host_key"] = RootFile(credentials.host_key, 0o600)
    return found


def _run(*command: str, stdin: str | None = None) -> None:
    result = subprocess.run(
        command,
        input=stdin,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=_SERVICE_SECONDS,
        check=False,
    )
    if result.returncode:
        raise NodeError(f"{' '.join(command)}: {result.stderr.strip() or result.stdout.strip()}")


def _add_management_addresses(node: Node) -> None:
    lines = [f"address add {address} dev {node.management_interface}" for address in node.management_addresses]
    lines.append(f"link set {node.management_interface} up")
    _run("ip", "-batch", "-", stdin="\n".join(lines) + "\n")


def _start_ssh_server() -> str:
    # It puts itself into the background; -j -k: no forwarding of ports (dropbear(8)).
    _start_daemon("dropbear", "-r", "/etc/dropbear/host_key", "-p", "22", "-P", "/run/dropbear.pid", "-j", "-k")
    return "dropbear"


def _start_daemon(*command: str) -> None:
    """Run a command that goes into the background by itself, or fails."""
    # FRR 10 keeps its standard streams open in the background: a pipe would never end.
    result = subprocess.run(command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, timeout=_SERVICE_SECONDS, check=False)
    if result.returncode:
        raise NodeError(f"{command[0]} ended with status {result.returncode}: {_log_tail()}")


def _log_tail() -> str:
    return _LOG.read_text(errors="replace")[-500:].strip()


def _start_frr(daemons: Sequence[str]) -> list[str]:
    """Start FRR's daemons without watchfrr and return their names.

    mgmtd and zebra come first, the others connect to them. A daemon that the image lacks is an error only when a module
    of the lab needs it.
    """
    _prepare_frr()
    wanted = list(dict.fromkeys([*_FRR_ALWAYS, *daemons]))
    for name in _FRR_FIRST:
        _start_daemon(*_frr_command(name))
    others = [name for name in wanted if name not in _FRR_FIRST]
    starting = [
        (name, subprocess.Popen(_frr_command(name), env=ENVIRONMENT, stdin=subprocess.DEVNULL)) for name in others
    ]
    for name, process in starting:
        if process.wait(_SERVICE_SECONDS):
            raise NodeError(f"{name} ended with status {process.returncode}: {_log_tail()}")
    deadline = time.monotonic() + _SERVICE_SECONDS
    while missing := [name for name in wanted if not (_FRR_RUN / f"{name}.vty").exists()]:
        if time.monotonic() > deadline:
            raise NodeError(f"{', '.join(missing)}: no vty after {_SERVICE_SECONDS:.0f} s: {_log_tail()}")
        time.sleep(0.01)
    return wanted


def _frr_command(name: str) -> list[str]:
    listen = "::1" if name in ("ospf6d", "ripngd") else "127.0.0.1"
    return [str(_FRR / name), "-d", "-A", listen]


def _prepare_frr() -> None:
    for directory in map(Path, ("/etc/frr", "/run/frr", "/var/log/frr")):
        directory.mkdir(parents=True, exist_ok=True)
        _give_to_frr(directory, 0o755)
    Path("/etc/frr/vtysh.conf").write_text("service integrated-vtysh-config\n")
    configuration = Path("/etc/frr/frr.conf")
    configuration.write_bytes(b"")
    _give_to_frr(configuration, 0o640)


def _give_to_frr(path: Path, mode: int) -> None:
    shutil.chown(path, "frr", "frr")
    path.chmod(mode)
