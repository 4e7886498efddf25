"""What this host can and cannot run, and what to do about it: for people, without changing anything.

Nothing here raises, needs root or needs anything to be installed: what cannot be looked at is a finding as well.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from remote_lab.errors import ImageUnavailable
from remote_lab.netlab import cgroups, features, management
from remote_lab.netlab.host_site import find_netlab
from remote_lab.netlab.image import Images
from remote_lab.netlab.rootless import commands, subids
from remote_lab.netlab.rootless.user_pods import free_networks

_COMMAND_SECONDS = 20
_MEBIBYTE = 2**20
_LAB_MIB = 512
"""A small lab; an FRR node takes about 20 MiB, netlab itself 100 MiB."""
_IMAGE_MIB = 1024
"""While it is built; afterwards it is 270 MiB."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROJECT = Path(__file__).parent.parent.parent
_PROBE = "import sys; sys.path.insert(0, sys.argv[1]); from remote_lab.netlab.netns.mount_probe import main; main()"
# Tool -> Debian package, whether labs cannot run without it.
_TOOLS = {
    "ip": ("iproute2", True),
    "nft": ("nftables", True),
    "unshare": ("util-linux", True),
    "setsid": ("util-linux", False),
    "ssh": ("openssh-client", False),
}
# Feature -> what labs cannot use without it, module, build option.
_KERNEL = {
    "vrf": ("VRFs, MPLS VPNs, EVPN symmetric IRB", "vrf", "CONFIG_NET_VRF"),
    "vlan": ("VLAN trunks and routed VLAN subinterfaces", "8021q", "CONFIG_VLAN_8021Q"),
    "bond": ("link aggregation (lag)", "bonding", "CONFIG_BONDING"),
    "vxlan": ("VXLAN and EVPN", "vxlan", "CONFIG_VXLAN"),
    "macvlan": ("first-hop gateways (VRRP, anycast)", "macvlan", "CONFIG_MACVLAN"),
    "gre": ("GRE tunnels", "ip_gre", "CONFIG_NET_IPGRE"),
    "wireguard": ("WireGuard tunnels", "wireguard", "CONFIG_WIREGUARD"),
    "netem": ("delay, loss and rate of links (tc)", "sch_netem", "CONFIG_NET_SCH_NETEM"),
    "mpls": ("MPLS, LDP, segment routing", "mpls_router", "CONFIG_MPLS_ROUTING"),
}
_KERNEL_PACKAGES = " (Debian: linux-image-amd64 instead of a cloud kernel; Ubuntu: linux-modules-extra-$(uname -r))"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str
    """What is there, or what is wrong."""
    remedy: str
    """What to do; empty when nothing has to be done."""
    required: bool = True
    """No lab can run while it is not ok; otherwise some can, or labs run all the same."""


@dataclass(frozen=True)
class Doctor:
    """Looks at this host for one server.

    Args:
        images: of the server.
        state_dir: of the server.
        pool: where management networks are taken from.
        netlab: executable for host providers that was asked for.
    """

    images: Images
    state_dir: Path
    pool: IPv4Network
    netlab: str | None

    def examine(self) -> list[Finding]:
        """Return everything that was found, what labs in sandboxes need first."""
        steps: dict[str, Callable[[], Iterator[Finding]]] = {
            "user": _user,
            "user namespaces": _user_namespaces,
            "mounts": self._mounts,
            "tools": _tools,
            "image": self._image,
            "management network": self._management,
            "memory": _memory,
            "limits of a lab": _lab_limits,
            "disk": self._disk,
            "kernel features": _kernel,
            "other providers": self._other_providers,
        }
        return [finding for name, step in steps.items() for finding in _safely(name, step)]

    def _mounts(self) -> Iterator[Finding]:
        if os.geteuid() != 0:
            yield from _mounts_of_user()
            return
        folders = {"state folder": self.state_dir, "image folder": self.images.image_dir}
        existing = {name: _nearest(folder) for name, folder in folders.items()}
        answer = json.loads(
            _output(sys.executable, "-I", "-S", "-c", _PROBE, str(_PROJECT), *{str(path) for path in existing.values()})
        )
        for name, folder in folders.items():
            problem = answer["idmapped"][str(existing[name])]
            kind = _file_system(existing[name])
            yield Finding(
                f"{name} ({folder})",
                problem is None,
                f"on {kind}, which has idmapped mounts" if problem is None else f"on {kind}: {problem}",
                "" if problem is None else "Put it on ext4, xfs, btrfs or tmpfs, with Linux 5.19 or later.",
            )
        problem = answer["overlay"]
        yield Finding("overlayfs", problem is None, problem or "works", "" if problem is None else "modprobe overlay")

    def _image(self) -> Iterator[Finding]:
        try:
            path = self.images.find()
        except ImageUnavailable as error:
            yield Finding("lab image", False, str(error), "Unset REMOTE_LAB_IMAGE, or name a built image with it.")
            return
        if path is not None:
            yield Finding("lab image", True, f"built: {path}", "")
        elif shutil.which("mmdebstrap", path=_PATH) is None:
            yield Finding(
                "lab image",
                False,
                f"not built, and mmdebstrap, which builds it, is missing ({self.images.image_dir})",
                "apt-get install mmdebstrap debian-archive-keyring, then: remote-lab image build",
            )
        else:
            remedy = "remote-lab image build (the start of the server builds it as well)"
            yield Finding("lab image", False, f"not built yet in {self.images.image_dir}", remedy, required=False)

    def _management(self) -> Iterator[Finding]:
        free = management.free_numbers(self.pool) if os.geteuid() == 0 else list(free_networks(self.pool))
        yield Finding(
            f"management network ({self.pool})",
            bool(free),
            f"{len(free)} networks for labs are free"
            if free
            else "every network of it is used by this host or by labs",
            "" if free else "Set REMOTE_LAB_MANAGEMENT_POOL to a private network that this host does not use.",
        )

    def _disk(self) -> Iterator[Finding]:
        is_built = any(self.images.image_dir.glob("*/etc")) if os.access(self.images.image_dir, os.R_OK) else False
        needed = {"state folder": (self.state_dir, _LAB_MIB), "image folder": (self.images.image_dir, _IMAGE_MIB)}
        for name, (folder, mebibytes) in needed.items():
            free = shutil.disk_usage(_nearest(folder)).free // _MEBIBYTE
            enough = free >= mebibytes or (name == "image folder" and is_built)
            yield Finding(
                f"disk of the {name}",
                enough,
                f"{_size(free)} free",
                "" if enough else f"Free at least {_size(mebibytes)} in {folder}, or choose another folder.",
            )

    def _other_providers(self) -> Iterator[Finding]:
        netlab = find_netlab(self.netlab)
        commands = {
            "clab": {"containerlab": "https://containerlab.dev/install/", "docker": "apt-get install docker.io"},
            "libvirt": {
                "virsh": "apt-get install libvirt-clients",
                "vagrant": "https://developer.hashicorp.com/vagrant",
            },
        }
        for provider, needed in commands.items():
            missing = {} if netlab else {"netlab": "pip install networklab"}
            missing |= {name: how for name, how in needed.items() if shutil.which(name) is None}
            yield Finding(
                f"provider {provider}",
                not missing,
                f"missing: {', '.join(missing)}" if missing else f"all there, netlab is {netlab}",
                f"Only for labs of containers or virtual machines: {'; '.join(missing.values())}" if missing else "",
                required=False,
            )


def _safely(name: str, step: Callable[[], Iterator[Finding]]) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(step())
    except Exception as error:  # noqa: BLE001 - a doctor that dies of what it finds helps nobody
        reason = f"cannot be looked at: {type(error).__name__}: {error}"
        found.append(Finding(name, False, reason, "See the findings above, then try again as root.", required=False))
    return found


def _user() -> Iterator[Finding]:
    if os.geteuid() == 0:
        yield Finding("user", True, "root: devices are reached at their own addresses", "")
        return
    way = "devices are reached through their pod, at addresses of 127.0.0.0/8"
    yield Finding("user", True, f"{subids.user_name()}, without root: {way}", "")
    for lack in subids.lacks():
        if lack.name != subids.USER_NAMESPACES:
            yield Finding(lack.name, False, lack.text, f"{lack.remedy}; or run the server as root")


def _mounts_of_user() -> Iterator[Finding]:
    try:
        reason = commands.why_no_pod()
    except commands.NoSubIds:
        yield Finding("mounts", False, "cannot be tried before the above is there", "Then try again.", required=False)
        return
    yield Finding("mounts", reason is None, reason or "work in a user namespace", commands.remedy() if reason else "")


def _user_namespaces() -> Iterator[Finding]:
    limit = _read("/proc/sys/user/max_user_namespaces")
    if not Path("/proc/self/ns/user").exists():
        problem, remedy = "the kernel has none", "Use a kernel with CONFIG_USER_NS."
    elif os.geteuid() != 0 and _read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        problem = "kept from ordinary users (kernel.unprivileged_userns_clone is 0)"
        remedy = (
            "sysctl -w kernel.unprivileged_userns_clone=1, and the same in /etc/sysctl.d/; or run the server as root"
        )
    elif limit == "0":
        problem = "switched off (user.max_user_namespaces is 0)"
        remedy = "sysctl -w user.max_user_namespaces=15000, and the same in /etc/sysctl.d/"
    else:
        problem = _why_not("unshare", "--user", "true")
        remedy = "In a container: run it with its own user namespaces allowed, or run the server on the host."
    yield Finding("user namespaces", not problem, problem or "work", remedy if problem else "", required=True)


def _tools() -> Iterator[Finding]:
    for tool, (package, required) in _TOOLS.items():
        if tool == "nft" and os.geteuid() != 0:
            continue  # without root there is no way from a lab to the host that rules could close
        path = shutil.which(tool, path=_PATH)
        yield Finding(
            f"tool {tool}", path is not None, path or "missing", "" if path else f"apt-get install {package}", required
        )


def _memory() -> Iterator[Finding]:
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) // 1024
    enough = free >= _LAB_MIB
    yield Finding(
        "memory",
        enough,
        f"{_size(free)} available, an FRR node takes about 20 MiB",
        "" if enough else f"Labs need at least {_size(_LAB_MIB)}.",
        required=False,
    )


def _lab_limits() -> Iterator[Finding]:
    for name, ok, detail, remedy in cgroups.describe():
        yield Finding(name, ok, detail, remedy, required=False)


def _kernel() -> Iterator[Finding]:
    missing = features.missing_kernel_features()
    packages = _KERNEL_PACKAGES
    for feature, (purpose, module, option) in _KERNEL.items():
        if feature in missing:
            remedy = f"modprobe {module}, else a kernel with {option}{packages}; then restart the server"
            packages = ""  # once is enough
            yield Finding(f"kernel: {feature}", False, f"missing: no {purpose}", remedy, required=False)
        else:
            yield Finding(f"kernel: {feature}", True, purpose, "", required=False)


def _nearest(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def _file_system(folder: Path) -> str:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    above = [fields for fields in mounts if folder.resolve().is_relative_to(fields[1])]
    return max(above, key=lambda fields: len(fields[1]), default=["", "", "an unknown file system"])[2]


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _why_not(*command: str) -> str:
    """Return the last words of a command that fails, empty when it succeeds."""
    try:
        _output(*command)
    except OSError as error:
        return str(error)
    return ""


def _output(*command: str) -> str:
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=_COMMAND_SECONDS,
        env={"PATH": _PATH, "LANG": "C.UTF-8"},
        check=False,
    )
    if result.returncode:
        raise OSError(f"{command[0]} failed: {result.stderr.strip()[-500:] or result.returncode}")
    return result.stdout


def _size(mebibytes: int) -> str:
    return f"{mebibytes} MiB" if mebibytes < 10 * 1024 else f"{mebibytes // 1024} GiB"
