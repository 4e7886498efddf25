"""Start one pod; run on the host, as root, in a process of its own that ends when the pod stands.

The pod is a user, mount, pid, net, uts and ipc namespace. Its PID 1 is `sleep` of the image under the pod's tag as its
name: it holds nothing of the server, does nothing, and the kernel reaps its orphans because it ignores SIGCHLD.

Procedure, with L the launcher (this process), A its child, B the pod's PID 1:
1. L moves into a private mount namespace and clones the trees of the image and of the lab's directory.
2. A joins the control groups, limits itself, becomes the pod's first user and unshares a user namespace; L writes its
   maps and mounts the trees through them, read-only.
3. A becomes uid 0 of the user namespace and unshares the rest. Its copy of the mounts is locked: the pod cannot make
   them writable again (mount_namespaces(7)).
4. A forks B, tells L its pid and ends; B builds its root, becomes session leader, gives up its privileges and executes
   `sleep`. A spare pod, which no lab has yet, waits for its name before that, and ends with whoever would tell it.
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

from remote_lab.netlab.netns import kernel, privileges
from remote_lab.netlab.netns.rootfs import RootFile, enter_new_root

_SCRATCH = Path("/tmp")  # noqa: S108 - covered by a tmpfs in a private mount namespace; the host's is not touched
_INIT = "/usr/bin/sleep"
_NAMESPACES = (
    kernel.CLONE_NEWNS
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWCGROUP
)
_PR_SET_DUMPABLE, _PR_SET_SECUREBITS = 4, 28
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_MAX_NAME = 1024
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
    """Seen at /lab; what is written there is gone with the pod."""
    files: dict[str, tuple[str, int]]
    """Path inside -> base64 of the bytes, permission bits."""
    tmpfs_mib: int
    """What everything that is written may take, /run, /tmp and /dev apart."""
    groups: list[str]
    """Files through which the control groups of the pod are joined."""
    processes: int
    """And threads, of the whole pod."""
    process_mib: int
    """Memory of each process, 0 where a control group holds all of them together."""
    name_socket: int | None = None
    """Descriptor by which PID 1 is told its name when it is known, one line; it ends when nobody will. The tag is not
    used then."""
    is_rootless: bool = False
    """The launcher is root of a user namespace of an ordinary user, with the ids of the pod, which own the image."""


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
    if request.is_rootless:
        become_root()  # not before: only the user has a way to the image and the directory
        # Otherwise /proc/PID of its children belongs to root of the host, and their maps cannot be written (proc(5)).
        kernel.process_control(_PR_SET_DUMPABLE, 1)
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
        owners = None if request.is_rootless else user_namespace
        kernel.attach_tree(image_tree, image, owners, read_only=True)
        kernel.attach_tree(directory_tree, directory, owners, read_only=True)
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
        for group in request.groups:
            Path(group).write_text("0")
        privileges.set_limits(request.processes, request.process_mib)
        _become_first_user(request.first_id)
        kernel.unshare(kernel.CLONE_NEWUSER)
        os.write(said, b"user namespace\n")
        if not os.read(go, 16):
            os._exit(1)
        # Before any exec, or the capabilities in the new user namespace are gone.
        become_root()
        kernel.unshare(_NAMESPACES)
        pid = os.fork()
        if pid:
            os.write(said, f"pid {pid}\n".encode())
            os._exit(0)
        _become_pid_1(request, said, image, directory, scratch)
    except BaseException as error:  # noqa: BLE001 - last words of a forked process, which must never return
        os.write(said, f"{type(error).__name__}: {error}\n".encode())
    os._exit(1)


def become_root() -> None:
    """Become uid and gid 0 of the user namespace that this process is in, without other groups."""
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _become_first_user(first_id: int) -> None:
    """Take the host's uid that is 0 in the pod, with all capabilities of root.

    What runs below a user namespace counts against whoever made it, and to root nothing counts (see `set_limits`).
    """
    kernel.process_control(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP)
    os.setgroups([])
    os.setresgid(first_id, first_id, first_id)
    os.setresuid(first_id, first_id, first_id)


def _become_pid_1(request: PodRequest, said: int, image: Path, directory: Path, scratch: Path) -> NoReturn:
    os.setsid()
    os.umask(0o022)
    files = {name: RootFile(base64.b64decode(content), mode) for name, (content, mode) in request.files.items()}
    files["/etc/hosts"] = RootFile(_HOSTS)
    files["/etc/resolv.conf"] = RootFile(b"")
    enter_new_root(
        scratch,
        image,
        binds={"/image": image},
        overlays={"/lab": directory},
        files=files,
        tmpfs_mib=request.tmpfs_mib,
    )
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
    privileges.confine_to_pod()
    tag = request.tag
    if request.name_socket is not None:
        os.dup2(null, said, inheritable=False)  # the launcher waits no longer
        tag = _wait_for_name(request.name_socket)
    os.execve(_INIT, [tag, "infinity"], {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})  # noqa: S606


def _wait_for_name(descriptor: int) -> str:
    """Return what this pod will be called; the other end is closed to it by the exec that follows."""
    os.set_inheritable(descriptor, False)
    said = b""
    while not said.endswith(b"\n"):
        chunk = os.read(descriptor, _MAX_NAME)
        if not chunk:  # its server has no use for it, or died
            os._exit(0)
        said += chunk
    return said.decode().strip()
