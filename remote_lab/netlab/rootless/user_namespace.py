"""Moves a process into a user namespace whose ids are the user's subordinate ones; newuidmap(1) writes the maps.

What happens in there is none of its business. Procedure of `enter`, with P this process and H its child:
1. P forks H and unshares; H stays outside, where the setuid programs of the package `uidmap` have their rights.
2. H has them write the maps of P. From then on P has every capability in the new namespace and none outside.
"""

from __future__ import annotations

import ctypes
import os
import subprocess

from remote_lab.netlab.netns import kernel

_MAP_SECONDS = 10
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CAPABILITY_VERSION_3 = 0x20080522
_PR_SET_NO_NEW_PRIVS = 38
_libc = ctypes.CDLL(None, use_errno=True)


def enter(first_uid: int, first_gid: int, count: int, *, with_own_ids: bool = False) -> None:
    """Enter it. The process keeps its uid, which has no number there: to become root is another step.

    Args:
        first_uid: of the range, which is 0 inside.
        first_gid: the same for groups.
        count: of ids in each range.
        with_own_ids: uid and gid of the user follow on the range, so that its root owns the user's files as well.
    Raises:
        OSError: the kernel or `newuidmap` refuse it; the message is theirs.
    """
    said_read, said_write = os.pipe()
    go_read, go_write = os.pipe()
    process = os.getpid()
    helper = os.fork()
    if helper == 0:
        os.close(said_read)
        os.close(go_write)
        reason = "the user namespace was not made"
        try:
            if os.read(go_read, 1):
                reason = _write_maps(process, (first_uid, first_gid), count, with_own_ids=with_own_ids)
            os.write(said_write, reason.encode())
        finally:
            os._exit(0)
    os.close(said_write)
    os.close(go_read)
    with os.fdopen(said_read) as said:
        try:
            kernel.unshare(kernel.CLONE_NEWUSER)
            os.write(go_write, b".")
        finally:
            os.close(go_write)
            reason = said.read()
            os.waitpid(helper, 0)
    if reason:
        raise OSError(reason)


def _write_maps(process: int, first_ids: tuple[int, int], count: int, *, with_own_ids: bool) -> str:
    """Return why the maps of a process cannot be written; empty when they are."""
    own_ids = (os.getuid(), os.getgid())
    for program, first, own in zip(("newuidmap", "newgidmap"), first_ids, own_ids, strict=True):
        command = [program, str(process), "0", str(first), str(count)]
        command += [str(count), str(own), "1"] if with_own_ids else []
        try:
            result = subprocess.run(
                command, capture_output=True, text=True, timeout=_MAP_SECONDS, env={"PATH": _PATH}, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{program}: {error}"
        if result.returncode:
            return f"{' '.join(command)}: {result.stderr.strip() or result.returncode}"
    return ""


def drop_capabilities() -> None:
    """Give away every capability, and the ways to get one again (capabilities(7))."""
    kernel.process_control(_PR_SET_NO_NEW_PRIVS, 1)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if _libc.capset(ctypes.byref(header), ctypes.byref(nothing)):
        raise OSError(ctypes.get_errno(), "capset")
