"""The root file system of a pod and of a node: the image below, a private tmpfs on top, own /dev /proc /sys /run /tmp.

Nothing here knows what a pod or a node is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from remote_lab.netlab.netns import kernel

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_SMALL = "size=64m,nr_inodes=16384"
_INODES_PER_MIB = 128
# What container engines hide as well. All of it belongs to the host's root, so nobody here could write it anyway.
_HIDDEN = (
    "proc/acpi",
    "proc/asound",
    "proc/cmdline",
    "proc/config.gz",
    "proc/kallsyms",
    "proc/kcore",
    "proc/key-users",
    "proc/keys",
    "proc/kmsg",
    "proc/latency_stats",
    "proc/modules",
    "proc/sched_debug",
    "proc/scsi",
    "proc/sysrq-trigger",
    "proc/timer_list",
    "proc/timer_stats",
    "sys/devices/virtual/powercap",
    "sys/firmware",
    "sys/kernel/debug",
    "sys/kernel/security",
    "sys/kernel/tracing",
)
_DEVICE_LINKS = {
    "ptmx": "pts/ptmx",
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}


@dataclass(frozen=True)
class RootFile:
    """A file to be written into a new root: its bytes and its permission bits."""

    content: bytes
    mode: int = 0o644


def enter_new_root(
    scratch: Path,
    image: Path,
    *,
    binds: Mapping[str, Path],
    overlays: Mapping[str, Path],
    files: Mapping[str, RootFile],
    tmpfs_mib: int,
) -> None:
    """Build a root in this mount namespace and make it `/`; everything else of the old root is out of sight after it.

    Args:
        scratch: an existing directory; a tmpfs is mounted on it.
        image: the read-only lower directory.
        binds: directory in the new root -> what is bound there.
        overlays: directory in the new root -> what is seen there, and only seems to be written.
        files: path in the new root -> what is written there.
        tmpfs_mib: how much the writable layers may hold together.
    """
    limits = f"size={tmpfs_mib}m,nr_inodes={tmpfs_mib * _INODES_PER_MIB}"
    kernel.mount("tmpfs", scratch, "tmpfs", 0, f"{limits},mode=755")
    root = scratch / "root"
    root.mkdir()
    _mount_overlay(scratch / "of-root", image, root)
    for target, source in binds.items():
        place = root / target.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        kernel.bind(source, place)
    for number, (target, source) in enumerate(overlays.items()):
        place = root / target.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        _mount_overlay(scratch / f"of-{number}", source, place)
    _mount_system_directories(root)
    for name, file in files.items():
        _write_file(root / name.lstrip("/"), file)
    kernel.change_root(root)


def _mount_overlay(layers: Path, lower: Path, target: Path) -> None:
    upper, work = layers / "upper", layers / "work"
    for directory in (layers, upper, work):
        directory.mkdir()
    # In a user namespace overlayfs may not use trusted.* attributes (kernel: filesystems/overlayfs.rst, userxattr).
    kernel.mount("overlay", target, "overlay", 0, f"lowerdir={lower},upperdir={upper},workdir={work},userxattr")


def _mount_system_directories(root: Path) -> None:
    kernel.mount("proc", root / "proc", "proc")
    # Not read-only: the kernel then refuses a sysfs of its own to a node ("Mount too revealing").
    kernel.mount("sysfs", root / "sys", "sysfs")
    for name, mode in (("run", "755"), ("tmp", "1777"), ("dev", "755")):
        kernel.mount("tmpfs", root / name, "tmpfs", kernel.MS_NOSUID, f"{_SMALL},mode={mode}")
    for name in _DEVICES:
        (root / "dev" / name).touch()
        kernel.bind(f"/dev/{name}", root / "dev" / name)
    for name in ("pts", "shm"):
        (root / "dev" / name).mkdir()
    kernel.mount("devpts", root / "dev/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620")
    (root / "dev/shm").chmod(0o1777)
    for name, destination in _DEVICE_LINKS.items():
        (root / "dev" / name).symlink_to(destination)
    for name in _HIDDEN:
        _hide(root / name)


def _hide(path: Path) -> None:
    if path.is_dir():
        kernel.mount("tmpfs", path, "tmpfs", kernel.MS_RDONLY | kernel.MS_NOSUID, "size=4k,nr_inodes=2")
    elif path.exists():
        kernel.bind("/dev/null", path)


def _write_file(path: Path, file: RootFile) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(file.content)
    path.chmod(file.mode)
