"""What this kernel cannot do, and netlab's defaults for a pod that say so.

A topology that needs a missing feature then gets netlab's own clear error before anything is started. Probing as root
of the host also loads the kernel modules that a pod may not load itself.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Collection
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

_PARENT = "link add p0 type veth peer name p1\n"
_PROBES = {
    "vrf": "link add t0 type vrf table 99",
    "vlan": f"{_PARENT}link add link p0 name t0 type vlan id 5",
    "bond": "link add t0 type bond",
    "vxlan": "link add t0 type vxlan id 5 dstport 4789",
    "macvlan": f"{_PARENT}link add link p0 name t0 type macvlan",
    "gre": "link add t0 type gre local 127.0.0.1 remote 127.0.0.2",
    "wireguard": "link add t0 type wireguard",
}
_MPLS = Path("/proc/sys/net/mpls")
# Kernel feature -> features of netlab's devices that cannot be had without it (netlab 26.10, netsim/devices/frr.yml).
_NEEDED_BY = {
    "vrf": ("vrf",),
    "vlan": ("vlan", "stp"),
    "bond": ("lag",),
    "vxlan": ("vxlan", "evpn"),
    "macvlan": ("gateway",),
    "gre": ("tunnel.gre",),
    "wireguard": ("tunnel.wireguard",),
    "mpls": ("mpls", "sr"),
}
_DEVICES = ("frr", "linux")
_PROBE_SECONDS = 10


def missing_kernel_features() -> frozenset[str]:
    """Try each feature in a network namespace that is gone after it; needs root.

    Returns:
        keys of `_NEEDED_BY`.
    """
    unshare, ip = shutil.which("unshare"), shutil.which("ip")
    if unshare is None or ip is None:
        raise FileNotFoundError("unshare or ip")
    missing = set()
    for feature, commands in _PROBES.items():
        result = subprocess.run(
            [unshare, "--net", ip, "-batch", "-"],
            input=commands + "\n",
            text=True,
            capture_output=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
        if result.returncode:
            missing.add(feature)
    if not _MPLS.exists():
        missing.add("mpls")
    return frozenset(missing)


def netlab_defaults(missing: Collection[str], management_address: str) -> str:
    """Return `/etc/netlab/defaults.yml` for a pod.

    Args:
        missing: what `missing_kernel_features` found.
        management_address: of the pod in its management network, with prefix length.
    """
    defaults: dict[str, Any] = yaml.safe_load(resources.files(__package__).joinpath("netns/defaults.yml").read_text())
    defaults["providers"]["netns"]["management_address"] = management_address
    devices = defaults["devices"]
    for feature in sorted(missing):
        for path in _NEEDED_BY[feature]:
            for device in _DEVICES:
                # For one provider alone netlab ignores it: it has to be said of the device.
                _set(devices[device].setdefault("features", {}), path, value=False)
                devices[device]["netns"].pop(f"features.{path}", None)
    return json.dumps(defaults, indent=1)


def _set(features: dict[str, Any], path: str, *, value: bool) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        features = features.setdefault(parent, {})
    features[last] = value
