"""The main program of processes that begin in a user namespace of their own: `main` with a verb and subordinate ids.

probe: say why pods cannot run, or nothing. run: a command as root of the namespace. keep: see `keeper.py`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from remote_lab.netlab.netns import kernel
from remote_lab.netlab.netns.pod_start import become_root
from remote_lab.netlab.rootless import user_namespace

_SCRATCH = Path("/tmp")  # noqa: S108 - covered by a tmpfs in a private mount namespace; the host's is not touched


def main() -> None:
    """Read the arguments: project, verb, first uid, first gid, how many; then those of the verb."""
    _, _, verb, *words = sys.argv
    first_uid, first_gid, count, *rest = words
    ids = int(first_uid), int(first_gid), int(count)
    if verb == "keep":
        from remote_lab.netlab.rootless import keeper

        keeper.main(ids)
    elif verb == "run":
        _run(ids, *rest)
    elif verb == "probe":
        _probe(ids)


def _probe(ids: tuple[int, int, int]) -> None:
    """Print why what a pod needs cannot be had; nothing when it can."""
    try:
        user_namespace.enter(*ids)
        become_root()
        kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET)
    except OSError as error:
        os.write(1, str(error).encode())
        return
    if child := os.fork():  # only a child is in the new pid namespace, whose /proc can be mounted
        os.waitpid(child, 0)
        return
    try:
        kernel.stop_mount_propagation()
        kernel.mount("tmpfs", _SCRATCH, "tmpfs")
        lower, upper, work, root = (_SCRATCH / name for name in ("lower", "upper", "work", "root"))
        for folder in (lower, upper, work, root):
            folder.mkdir()
        kernel.mount("overlay", root, "overlay", 0, f"lowerdir={lower},upperdir={upper},workdir={work},userxattr")
        kernel.mount("proc", "/proc", "proc")
    except OSError as error:
        os.write(1, str(error).encode())


def _run(ids: tuple[int, int, int], *command: str) -> None:
    """Run a command as who owns the files of the subordinate ids and those of the user."""
    user_namespace.enter(*ids, with_own_ids=True)
    become_root()
    os.execvp(command[0], command)  # noqa: S606
