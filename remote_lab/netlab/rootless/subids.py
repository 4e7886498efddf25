"""The subordinate ids of the user who runs the server (subuid(5), subgid(5)), and what keeps that user from pods.

Nothing is changed here; what is missing is said with the command that helps.
"""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from remote_lab.netlab.processes import IDS_PER_POD

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
USER_NAMESPACES = "user namespaces"
_FIRST_ORDINARY = 100_000
"""Where useradd begins to give away ranges (SUB_UID_MIN in login.defs(5))."""
_MAX_USER_NAMESPACES = Path("/proc/sys/user/max_user_namespaces")
_DEBIAN_SWITCH = Path("/proc/sys/kernel/unprivileged_userns_clone")
_UBUNTU_SWITCH = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")


@dataclass(frozen=True)
class SubIds:
    """As many uids and gids of the host as a pod has."""

    first_uid: int
    first_gid: int

    @property
    def arguments(self) -> list[str]:
        """As `rootless/launch.py` takes them: first uid, first gid, how many."""
        return [str(self.first_uid), str(self.first_gid), str(IDS_PER_POD)]


@dataclass(frozen=True)
class Lack:
    """One thing that keeps this user from having pods."""

    name: str
    """Of what was looked at."""
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.text} ({self.remedy})"


def find(etc: Path = Path("/etc")) -> SubIds | None:
    """Return the first ranges of this user that are large enough; None when there is none of uids or none of gids."""
    uid, gid = (next(_large_enough(etc / name), None) for name in ("subuid", "subgid"))
    return None if uid is None or gid is None else SubIds(uid, gid)


def _large_enough(file: Path) -> Iterator[int]:
    names = {user_name(), str(os.getuid())}
    for name, first, count in _ranges(file):
        if name in names and count >= IDS_PER_POD:
            yield first


def user_name() -> str:
    """Return the login name of this user, the uid when there is none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _ranges(file: Path) -> Iterator[tuple[str, int, int]]:
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        name, _, numbers = line.strip().partition(":")
        first, _, count = numbers.partition(":")
        if first.isdecimal() and count.isdecimal():
            yield name, int(first), int(count)


def lacks(etc: Path = Path("/etc")) -> list[Lack]:
    """Return what keeps this user from having pods as far as files of the system say it."""
    found = []
    if _read(_MAX_USER_NAMESPACES) == "0":
        remedy = "sudo sysctl -w user.max_user_namespaces=15000, and the same in /etc/sysctl.d/"
        found.append(Lack(USER_NAMESPACES, "user namespaces are switched off: user.max_user_namespaces is 0", remedy))
    if _read(_DEBIAN_SWITCH) == "0":
        remedy = "sudo sysctl -w kernel.unprivileged_userns_clone=1, and the same in /etc/sysctl.d/"
        found.append(Lack(USER_NAMESPACES, "this kernel keeps user namespaces from ordinary users", remedy))
    if any(shutil.which(name, path=PATH) is None for name in ("newuidmap", "newgidmap")):
        found.append(Lack("tool newuidmap", "newuidmap and newgidmap are missing", "sudo apt-get install uidmap"))
    if find(etc) is None:
        what = f"user {user_name()} has no {IDS_PER_POD} subordinate uids and gids in {etc}/subuid and {etc}/subgid"
        found.append(Lack("subordinate ids", what, f"sudo usermod {_usermod_options(etc)} {user_name()}"))
    return found


def apparmor_remedy() -> str | None:
    """Return what to do where AppArmor lets ordinary users have user namespaces without any right in them."""
    if _read(_UBUNTU_SWITCH) in ("", "0"):
        return None
    return (
        "AppArmor restricts user namespaces here: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, and "
        "the same in /etc/sysctl.d/; or an AppArmor profile with `userns,` for this Python"
    )


def _usermod_options(etc: Path) -> str:
    options = []
    for option, name in (("--add-subuids", "subuid"), ("--add-subgids", "subgid")):
        ends = [first + count for _, first, count in _ranges(etc / name)]
        first = max([_FIRST_ORDINARY, *ends])
        options.append(f"{option} {first}-{first + IDS_PER_POD - 1}")
    return " ".join(options)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
