"""The two kinds of mounts that a pod needs, tried in namespaces that are gone after it.

Run on the host, as root, in a process of its own, like `pod_start.py`; nothing of the host is changed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from remote_lab.netlab.netns import kernel

_SCRATCH = Path("/tmp")  # noqa: S108 - covered by a tmpfs in a private mount namespace; the host's is not touched
_FIRST_ID = 0x70000000
_ID_COUNT = 0x10000


def main() -> None:
    """Print JSON: `idmapped` (per folder of the arguments) and `overlay`, each the reason why not, or null."""
    answer = {
        "idmapped": {folder: _try(partial(_mount_idmapped, Path(folder))) for folder in sys.argv[2:]},
        "overlay": _try(_mount_overlay),
    }
    print(json.dumps(answer))


def _try(step: Callable[[], None]) -> str | None:
    """Take a step in a child process, which takes its namespaces along; return why it failed."""
    said_read, said_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(said_read)
        try:
            kernel.unshare(kernel.CLONE_NEWNS)
            kernel.stop_mount_propagation()
            step()
        except BaseException as error:  # noqa: BLE001 - last words of a forked process, which must never return
            os.write(said_write, f"{error}".encode())
        os._exit(0)
    os.close(said_write)
    with os.fdopen(said_read) as said:
        reason = said.read()
    os.waitpid(child, 0)
    return reason or None


def _mount_idmapped(folder: Path) -> None:
    tree = kernel.clone_tree(folder)  # before the folder may be covered
    kernel.mount("tmpfs", _SCRATCH, "tmpfs")
    target = _SCRATCH / "target"
    target.mkdir()
    kernel.attach_tree(tree, target, _new_user_namespace(), read_only=True)


def _new_user_namespace() -> int:
    """Return a file descriptor of a user namespace with the maps of a pod."""
    ready_read, ready_write = os.pipe()
    end_read, end_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(end_write)
        try:
            kernel.unshare(kernel.CLONE_NEWUSER)
            os.write(ready_write, b".")
            os.read(end_read, 1)
        finally:
            os._exit(0)
    os.close(ready_write)
    if not os.read(ready_read, 1):
        raise OSError("no user namespace can be made")
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{child}/{name}").write_text(f"0 {_FIRST_ID} {_ID_COUNT}")
    descriptor = os.open(f"/proc/{child}/ns/user", os.O_RDONLY)
    os.close(end_write)
    os.waitpid(child, 0)
    return descriptor


def _mount_overlay() -> None:
    kernel.mount("tmpfs", _SCRATCH, "tmpfs")
    for name in ("lower", "upper", "work", "root"):
        (_SCRATCH / name).mkdir()
    lower, upper, work, root = (_SCRATCH / name for name in ("lower", "upper", "work", "root"))
    kernel.mount("overlay", root, "overlay", 0, f"lowerdir={lower},upperdir={upper},workdir={work},userxattr")
