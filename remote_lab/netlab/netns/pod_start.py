"""Start one pod; run on the host, as root, in a process of its own that ends when the pod stands.

The pod is a user, mount, pid, net, uts and ipc namespace. Its PID 1 is `sleep` of the image under the pod's tag as its
name: it holds nothing of the server, does nothing, and the kernel reaps its orphans because it ignores SIGCHLD.

Procedure, with L the launcher (this process), A its child, B the pod's PID 1:
1. L moves into a private mount namespace and clones the trees of the image and of the lab's directory.
2. A unshares a user namespace; L writes its maps and mounts the trees through them.
3. A becomes uid 0 of the user namespace and unshares the rest. Its copy of the mounts is locked: the pod cannot make
   the image writable again (mount_namespaces(7)).
4. A forks B, tells L its pid and ends; B builds its root, becomes session leader and executes `sleep`.
5. L prints `{"pid": ...}` or `{"error": ...}`.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TextIO

from remote_lab.netlab.netns import kernel
from remote_lab.netlab.netns.rootfs import RootFile, enter_new_root

_SCRATCH = Path("/tmp")  # noqa: S108 - covered by a tmpfs in a private mount namespace; the host's is not touched
_INIT = "/usr/bin/sleep"
_HOSTS = b"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 pod\n"


@dataclass(frozen=True)
class PodRequest:
    """What a pod is made of: the JSON that the launcher reads from its standard input."""

    tag: str
    """Name of PID 1."""
    first_id: int
    """Uid and gid of the host that are 0 inside."""
    id_count: int
    image: str
    directory: str
    """Bound writable at /lab."""
    files: dict[str, tuple[str, int]]
    """Path inside -> base64 of the bytes, permission bits."""
    tmpfs_mib: int


class PodStartError(Exception):
    """A step of the procedure failed; the message says which."""


def main() -> None:
    request = PodRequest(**json.load(sys.stdin))
    try:
        answer: dict[str, object] = {"pid": start(request)}
    except (OSError, PodStartError) as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))


def start(request: PodRequest) -> int:
    """Start the pod and return its PID 1 as the host numbers it."""
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.stop_mount_propagation()
    image_tree = kernel.clone_tree(Path(request.image))
    directory_tree = kernel.clone_tree(Path(request.directory))
    kernel.mount("tmpfs", _SCRATCH, "tmpfs", 0, "mode=755")
    image, directory, scratch = (_SCRATCH / name for name in ("image", "lab", "scratch"))
    for path in (image, directory, scratch):
        path.mkdir()

    said_read, said_write = os.pipe()
    go_read, go_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(said_read)
        os.close(go_write)
        _run_child(request, said_write, go_read, image, directory, scratch)
    os.close(said_write)
    os.close(go_read)
    with os.fdopen(said_read, "r") as said, os.fdopen(go_write, "w") as go:
        _expect(said, "user namespace")
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{child}/{name}").write_text(f"0 {request.first_id} {request.id_count}")
        user_namespace = os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        kernel.attach_idmapped(image_tree, image, user_namespace, read_only=True)
        kernel.attach_idmapped(directory_tree, directory, user_namespace, read_only=False)
        go.write("go\n")
        go.flush()
        pid = int(_expect(said, "pid "))
        os.waitpid(child, 0)
        rest = said.read()  # ends with the exec of PID 1, which closes its end, or carries its last words
    if rest:
        raise PodStartError(rest.strip())
    return pid


def _expect(said: TextIO, prefix: str) -> str:
    line = said.readline().strip()
    if not line.startswith(prefix):
        raise PodStartError(line or f"the pod ended before it said {prefix!r}")
    return line.removeprefix(prefix)


def _run_child(request: PodRequest, said: int, go: int, image: Path, directory: Path, scratch: Path) -> NoReturn:
    try:
        kernel.unshare(kernel.CLONE_NEWUSER)
        os.write(said, b"user namespace\n")
        if not os.read(go, 16):
            os._exit(1)
        # Before any exec, or the capabilities in the new user namespace are gone.
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        kernel.unshare(
            kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET
        )
        pid = os.fork()
        if pid:
            os.write(said, f"pid {pid}\n".encode())
            os._exit(0)
        _become_pid_1(request, image, directory, scratch)
    except BaseException as error:  # noqa: BLE001 - last words of a forked process, which must never return
        os.write(said, f"{type(error).__name__}: {error}\n".encode())
    os._exit(1)


def _become_pid_1(request: PodRequest, image: Path, directory: Path, scratch: Path) -> NoReturn:
    os.setsid()
    os.umask(0o022)
    files = {name: RootFile(base64.b64decode(content), mode) for name, (content, mode) in request.files.items()}
    files["/etc/hosts"] = RootFile(_HOSTS)
    files["/etc/resolv.conf"] = RootFile(b"")
    binds = {"/lab": directory, "/image": image}
    enter_new_root(scratch, image, binds=binds, files=files, tmpfs_mib=request.tmpfs_mib)
    socket.sethostname("pod")
    kernel.bring_loopback_up()
    # The bridges of the lab live in this namespace; its own IP stack stays out of them.
    for name in ("ipv4/ip_forward=0", "ipv6/conf/all/disable_ipv6=1", "ipv6/conf/default/disable_ipv6=1"):
        path, value = name.split("=")
        setting = Path("/proc/sys/net", path)
        if setting.exists():
            setting.write_text(value)
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.chdir("/lab")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.execve(_INIT, [request.tag, "infinity"], {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})  # noqa: S606
