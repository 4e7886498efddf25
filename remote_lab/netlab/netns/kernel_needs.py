"""What single interfaces need of the kernel; what whole modules need is said of the devices, see `features.py`.

netlab knows features of devices only. A VLAN without a trunk, for instance, needs a bridge and nothing else, so the
module `vlan` stays and the interface that needs more is refused, at `netlab create`, as netlab refuses anything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

_REMEDY = (
    "Load it on the lab host (modprobe {module}) or use a kernel that has it (option {option}), "
    "then restart the server."
)
# Feature of the kernel -> what it is called, its module, its build option.
_NAMES = {
    "vlan": ("VLAN subinterfaces", "8021q", "CONFIG_VLAN_8021Q"),
    "bond": ("bonds", "bonding", "CONFIG_BONDING"),
    "netem": ("delay, loss and rate of links", "sch_netem", "CONFIG_NET_SCH_NETEM"),
}


@dataclass(frozen=True)
class Lack:
    """An interface that this kernel cannot make."""

    text: str
    remedy: str


def missing_for(node: Any, missing: Collection[str]) -> list[Lack]:
    """Return what a node needs and the kernel lacks, once per feature.

    Args:
        node: netlab's data of a node.
        missing: features of the kernel that are not there.
    """
    found: dict[str, Lack] = {}
    for feature, interface in _needs(node):
        if feature in missing and feature not in found:
            name, module, option = _NAMES[feature]
            found[feature] = Lack(
                f"Node {node['name']} (interface {interface}) needs {name}, and the kernel of this lab host has none",
                _REMEDY.format(module=module, option=option),
            )
    return list(found.values())


def _needs(node: Any) -> Iterator[tuple[str, str]]:
    for interface in node.get("interfaces", []):
        name, kind = interface.get("ifname", "?"), interface.get("type", "")
        if kind == "vlan_member":
            yield "vlan", name
        if kind in ("lag", "bond"):
            yield "bond", name
        if interface.get("tc"):
            yield "netem", name
