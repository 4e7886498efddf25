"""One node: its namespaces, its root, its address and its services. Links between nodes are made in `links.py`.

A node is a net, mount, uts, ipc and pid namespace in the pod. Its PID 1 prepares everything, then becomes `sleep`. What
needs only the name and the device is done at once, the rest when the plan is known and the links are there.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from io import FileIO, TextIOWrapper
from pathlib import Path
from typing import NoReturn

from remote_lab.netlab.netns import kernel, privileges
from remote_lab.netlab.netns.credentials import Credentials
from remote_lab.netlab.netns.lab import NODE_TAG, Node, Outline
from remote_lab.netlab.netns.rootfs import RootFile, enter_new_root

_IMAGE = Path("/image")
_SCRATCH = Path("/mnt")
_TMPFS_MIB = 64
_INIT = "/usr/bin/sleep"
_FRR = Path("/usr/lib/frr")
_PAM_OF_VTYSH = b"auth sufficient pam_permit.so\naccount sufficient pam_permit.so\n"
_FRR_RUN = Path("/run/frr")
_FRR_FIRST = ("mgmtd", "zebra")
_FRR_NEXT = ("staticd",)
_LOG = Path("/var/log/node.log")
_SERVICE_SECONDS = 30.0
_PID, _BEGUN, _SERVICES = "pid ", "begun", "services "
"""What a node says on its way, a line each."""
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}


class NodeError(Exception):
    """A node did not start; the message names the node and the reason."""


@dataclass(frozen=True)
class _Rest:
    """What a node is told when its plan is known."""

    management_interface: str
    management_addresses: Sequence[str]
    frr_daemons: Sequence[str]
    hosts: Sequence[str]


@dataclass(eq=False)
class StartingNode:
    """A node on its way: its namespaces are made, then its root, then it waits for its plan."""

    outline: Outline
    _child: int
    _said: FileIO
    _go: TextIOWrapper
    pid: int = 0
    """Its PID 1, from `settle` on."""

    def settle(self) -> None:
        """Return when its namespaces are there.

        Raises:
            NodeError: they are not.
        """
        self.pid = int(self._expect(_PID))
        os.waitpid(self._child, 0)

    def fileno(self) -> int:
        """For `select`: readable when `hear` does not block."""
        return self._said.fileno()

    def finish(self, node: Node, hosts: Sequence[str]) -> None:
        """Let it go on, now that its links are there.

        Args:
            node: what the plan says of it.
            hosts: lines for its /etc/hosts.
        """
        rest = _Rest(node.management_interface, node.management_addresses, node.frr_daemons, hosts)
        # One that has ended says why when it is heard.
        with suppress(BrokenPipeError):
            self._go.write(f"{json.dumps(asdict(rest))}\n")
            self._go.close()

    def hear(self) -> list[str] | None:
        """Return what it says next: None when it waits for `finish`, at the end the names of its services.

        Raises:
            NodeError: it did not start.
        """
        said = self._expect("")
        if said == _BEGUN:
            return None
        if not said.startswith(_SERVICES):
            raise self._failure(said)
        return said.removeprefix(_SERVICES).split()

    def close(self) -> None:
        """Hear no more of it; one that waits for `finish` ends."""
        self._said.close()
        self._go.close()

    def _expect(self, prefix: str) -> str:
        line = self._said.readline().decode(errors="replace").strip()
        if not line or not line.startswith(prefix):
            raise self._failure(line)
        return line.removeprefix(prefix)

    def _failure(self, line: str) -> NodeError:
        return NodeError(f"node {self.outline.name} did not start: {line or 'it ended without a word'}")


def start(outline: Outline, credentials: Credentials) -> StartingNode:
    """Begin to make a node; it is built while the caller goes on."""
    said_read, said_write = os.pipe()
    go_read, go_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(said_read)
        os.close(go_write)
        _run_child(outline, credentials, said_write, go_read)
    os.close(said_write)
    os.close(go_read)
    return StartingNode(outline, child, FileIO(said_read), os.fdopen(go_write, "w"))


def _run_child(outline: Outline, credentials: Credentials, said: int, go: int) -> NoReturn:
    try:
        kernel.unshare(
            kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET
        )
        introduced, introduces = os.pipe()
        pid = os.fork()
        if pid:
            os.write(said, f"{_PID}{pid}\n".encode())
            os._exit(0)
        os.close(introduces)
        os.read(introduced, 1)  # nothing: its other end goes with the parent, when that has said the pid
        os.close(introduced)
        _become_pid_1(outline, credentials, said, go)
    except BaseException as error:  # noqa: BLE001 - last words of a forked process, which must never return
        with suppress(OSError):  # where nobody hears them any more
            os.write(said, f"{type(error).__name__}: {error}\n".encode())
    os._exit(1)


def _become_pid_1(outline: Outline, credentials: Credentials, said: int, go: int) -> NoReturn:
    os.setsid()
    os.umask(0o022)
    kernel.stop_mount_propagation()
    files = _files(outline, credentials)
    enter_new_root(_SCRATCH, _IMAGE, binds={}, overlays={}, files=files, tmpfs_mib=_TMPFS_MIB)
    socket.sethostname(outline.name)
    kernel.bring_loopback_up()
    privileges.confine_to_node(outline.device)
    os.chdir("/root")
    null = os.open("/dev/null", os.O_RDONLY)
    log = os.open(_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for source, standard in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, standard)
    services = [_start_ssh_server()]
    if outline.device == "frr":
        services += _start_first_frr_daemons()
    os.write(said, f"{_BEGUN}\n".encode())
    with os.fdopen(go) as told:
        text = told.readline()
    if not text:
        os._exit(1)
    rest = _Rest(**json.loads(text))
    Path("/etc/hosts").write_text("\n".join(["127.0.0.1 localhost", "::1 localhost", *rest.hosts, ""]))
    _add_management_addresses(rest)
    if outline.device == "frr":
        services += _start_other_frr_daemons(rest.frr_daemons)
    os.write(said, f"{_SERVICES}{' '.join(dict.fromkeys(services))}\n".encode())
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.execve(_INIT, [NODE_TAG + outline.name, "infinity"], ENVIRONMENT)  # noqa: S606


def _files(outline: Outline, credentials: Credentials) -> dict[str, RootFile]:
    passwd = (_IMAGE / "etc/passwd").read_text().splitlines()
    users = [line for line in passwd if not line.startswith("root:")]
    files = {
        "/etc/hostname": f"{outline.name}\n",
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


def _add_management_addresses(rest: _Rest) -> None:
    lines = [f"address add {address} dev {rest.management_interface}" for address in rest.management_addresses]
    lines.append(f"link set {rest.management_interface} up")
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


def _start_first_frr_daemons() -> list[str]:
    """Start those FRR daemons that every router has, without watchfrr, and return their names.

    mgmtd and zebra come first, the others connect to them.
    """
    _prepare_frr()
    for name in _FRR_FIRST:
        _start_daemon(*_frr_command(name))
    return [*_FRR_FIRST, *_start_frr_daemons(_FRR_NEXT)]


def _start_other_frr_daemons(wanted: Sequence[str]) -> list[str]:
    """Start what the modules of a node need, wait for all, and return the names of those that were started here.

    A daemon that the image lacks is an error only when a module of the lab needs it.
    """
    there = (*_FRR_FIRST, *_FRR_NEXT)
    started = _start_frr_daemons([name for name in dict.fromkeys(wanted) if name not in there])
    deadline = time.monotonic() + _SERVICE_SECONDS
    while missing := [name for name in (*there, *started) if not (_FRR_RUN / f"{name}.vty").exists()]:
        if time.monotonic() > deadline:
            raise NodeError(f"{', '.join(missing)}: no vty after {_SERVICE_SECONDS:.0f} s: {_log_tail()}")
        time.sleep(0.01)
    return started


def _start_frr_daemons(names: Sequence[str]) -> list[str]:
    starting = [
        (name, subprocess.Popen(_frr_command(name), env=ENVIRONMENT, stdin=subprocess.DEVNULL)) for name in names
    ]
    for name, process in starting:
        if process.wait(_SERVICE_SECONDS):
            raise NodeError(f"{name} ended with status {process.returncode}: {_log_tail()}")
    return list(names)


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
