"""What this kernel cannot do, and netlab's defaults for a pod that say so.

A topology that needs a missing feature then gets netlab's own clear error before anything is started. Probing as root
of the host also loads the kernel modules that a pod may not load itself.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Collection, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

_IP, _TC = ("ip", "-batch", "-"), ("tc", "-batch", "-")
_PARENT = "link add p0 type veth peer name p1\n"
_PROBES = {
    "vrf": (_IP, "link add t0 type vrf table 99"),
    "vlan": (_IP, f"{_PARENT}link add link p0 name t0 type vlan id 5"),
    "bond": (_IP, "link add t0 type bond"),
    "vxlan": (_IP, "link add t0 type vxlan id 5 dstport 4789"),
    "macvlan": (_IP, f"{_PARENT}link add link p0 name t0 type macvlan"),
    "gre": (_IP, "link add t0 type gre local 127.0.0.1 remote 127.0.0.2"),
    "wireguard": (_IP, "link add t0 type wireguard"),
    "netem": (_TC, "qdisc add dev lo root netem delay 1ms"),
}
_MPLS = Path("/proc/sys/net/mpls")
# Kernel feature -> features of netlab's devices that cannot be had at all without it (netlab 26.10,
# netsim/devices/frr.yml); VLANs, bonds and netem are also needs of single interfaces, see `netns/kernel_needs.py`.
_NEEDED_BY = {
    "vrf": ("vrf",),
    "bond": ("lag",),
    "vxlan": ("vxlan", "evpn"),
    "macvlan": ("gateway",),
    "gre": ("tunnel.gre",),
    "wireguard": ("tunnel.wireguard",),
    "mpls": ("mpls", "sr"),
}
FEATURES = (*_PROBES, "mpls")
"""All that is looked for."""
_DEVICES = (("devices", "frr"), ("devices", "linux"), ("daemons", "bird"))
_PROBE_SECONDS = 10
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def missing_kernel_features() -> frozenset[str]:
    """Try each feature in a network namespace that is gone after it; without root in a user namespace.

    Returns:
        of `FEATURES`.
    """
    missing = {feature for feature, (tool, commands) in _PROBES.items() if not _succeeds(tool, commands)}
    if not _MPLS.exists():
        _load("mpls_router", "mpls_iptunnel")  # no interface whose creation would load them
    if not _MPLS.exists():
        missing.add("mpls")
    return frozenset(missing)


def _load(*modules: str) -> None:
    """Load kernel modules where this user may and the kernel has any."""
    modprobe = shutil.which("modprobe", path=_PATH)
    if modprobe is not None and os.geteuid() == 0:
        subprocess.run([modprobe, "-qa", *modules], capture_output=True, timeout=_PROBE_SECONDS, check=False)


def _succeeds(tool: Sequence[str], commands: str) -> bool:
    unshare, command = shutil.which("unshare", path=_PATH), shutil.which(tool[0], path=_PATH)
    if unshare is None or command is None:
        raise FileNotFoundError(f"unshare or {tool[0]}")
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    result = subprocess.run(
        [unshare, *as_root, "--net", command, *tool[1:]],
        input=commands + "\n",
        text=True,
        capture_output=True,
        timeout=_PROBE_SECONDS,
        check=False,
    )
    return result.returncode == 0


def netlab_defaults(missing: Collection[str], management_address: str, *, forwarded_ssh_port: int | None = None) -> str:
    """Return `/etc/netlab/defaults.yml` for a pod.

    Args:
        missing: what `missing_kernel_features` found.
        management_address: of the pod in its management network, with prefix length.
        forwarded_ssh_port: by which devices are reached at their address in 127.0.0.0/8; None: at their own.
    """
    defaults: dict[str, Any] = yaml.safe_load(resources.files(__package__).joinpath("netns/defaults.yml").read_text())
    defaults["providers"]["netns"]["management_address"] = management_address
    defaults["providers"]["netns"]["missing"] = sorted(missing)
    defaults["providers"]["netns"]["forwarded_ssh_port"] = forwarded_ssh_port
    for feature in sorted(missing):
        for path in _NEEDED_BY.get(feature, ()):
            for kind, device in _DEVICES:
                # For one provider alone netlab ignores it: it has to be said of the device.
                defaults[kind][device][f"features.{path}"] = False
    return json.dumps(defaults, indent=1)
