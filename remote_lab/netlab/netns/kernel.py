"""The system calls that namespaces and mounts need and that Python does not offer; no policy lives here.

Numbers of newer system calls are the same on every architecture (`include/uapi/asm-generic/unistd.h`).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

TYPE_CHECKING = False  # that of typing costs more than all else that is imported here
if TYPE_CHECKING:
    from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18

_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_MOUNT_SETATTR = 442
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
_MOUNT_ATTR_RDONLY = 0x1
_MOUNT_ATTR_NOSUID = 0x2
_MOUNT_ATTR_NODEV = 0x4
_MOUNT_ATTR_IDMAP = 0x100000
_MNT_DETACH = 2
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """Move the calling process into new namespaces (`unshare(2)`); `os.unshare` came with Python 3.12 only."""
    _check(_libc.unshare(flags), "unshare")


def join_namespaces(pidfd: int, flags: int) -> None:
    """Move the calling process into namespaces of another one, all or none (`setns(2)`, Linux 5.8)."""
    _check(_libc.setns(pidfd, flags), "setns")


def process_control(option: int, *arguments: int | bytes) -> None:
    """Do what `prctl(2)` does; numbers are passed as unsigned longs, bytes by their address."""
    passed = [ctypes.c_ulong(argument) if isinstance(argument, int) else argument for argument in arguments]
    rest = [ctypes.c_ulong(0)] * (4 - len(passed))
    _check(_libc.prctl(option, *passed, *rest), f"prctl {option}")


def mount(source: str, target: Path | str, kind: str, flags: int = 0, options: str = "") -> None:
    """Mount as `mount(2)` does; `options` is the comma separated data of the file system."""
    result = _libc.mount(source.encode(), str(target).encode(), kind.encode(), flags, options.encode())
    _check(result, f"mount {kind} {source} on {target} ({options})")


def bind(source: Path | str, target: Path | str) -> None:
    mount(str(source), target, "none", MS_BIND)


def stop_mount_propagation() -> None:
    """Keep what this mount namespace mounts from showing in the one it was copied from."""
    mount("none", "/", "none", MS_REC | MS_PRIVATE)


def change_root(root: Path | str) -> None:
    """Make `root`, a mount point, the root of this mount namespace and drop the old one."""
    os.chdir(root)
    _check(_libc.pivot_root(b".", b"."), f"pivot_root {root}")
    # pivot_root(".", ".") stacks the old root on the new one (pivot_root(2), NOTES): no directory for it is needed.
    _check(_libc.umount2(b".", _MNT_DETACH), "umount of the old root")
    os.chdir("/")


def clone_tree(path: Path) -> int:
    """Return a file descriptor of a detached copy of the mount that `path` lies on, rooted at `path`."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
    return _check(_libc.syscall(_SYS_OPEN_TREE, _AT_FDCWD, str(path).encode(), flags), f"open_tree {path}")


def attach_tree(tree: int, target: Path, user_namespace: int | None, *, read_only: bool) -> None:
    """Mount a detached tree on `target` so that its owners are seen through the map of a user namespace.

    Args:
        tree: what `clone_tree` returned; stays open.
        target: an existing directory.
        user_namespace: file descriptor of a user namespace whose maps are written; None: owners stay as they are.
        read_only: nobody may write, not even root of that user namespace.
    Raises:
        OSError: EINVAL where the file system knows no idmapped mounts (`mount_setattr(2)`).
    """
    attributes = _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV
    if user_namespace is not None:
        attributes |= _MOUNT_ATTR_IDMAP
    if read_only:
        attributes |= _MOUNT_ATTR_RDONLY
    structure = (ctypes.c_uint64 * 4)(attributes, 0, 0, user_namespace or 0)
    size = ctypes.c_size_t(ctypes.sizeof(structure))
    _check(
        _libc.syscall(_SYS_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, ctypes.byref(structure), size),
        "idmapped mount (mount_setattr)",
    )
    _check(
        _libc.syscall(_SYS_MOVE_MOUNT, tree, b"", _AT_FDCWD, str(target).encode(), _MOVE_MOUNT_F_EMPTY_PATH),
        f"move_mount {target}",
    )


def bring_loopback_up() -> None:
    import socket  # which not every process that joins namespaces needs, and each of them counts milliseconds

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        (flags,) = struct.unpack_from("h", request, 16)
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))
