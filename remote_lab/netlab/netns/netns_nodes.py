"""netlab's plugin `netns_nodes`: whatever provider a topology asks for, its nodes run in namespaces of this pod.

Topologies that were written for a containerlab host say `provider: clab` of single nodes; a pod has neither Docker nor
libvirt. Nodes of the provider `external` stay: they are somebody else's hardware.
"""

from __future__ import annotations

from typing import Any

_REPLACED = ("clab", "libvirt", "virtualbox")


def init(topology: Any) -> None:
    """Called by netlab after groups are expanded and before the providers of nodes are looked at (netlab 26.10)."""
    for known in (topology, *topology.get("nodes", {}).values(), *topology.get("groups", {}).values()):
        if isinstance(known, dict) and known.get("provider") in _REPLACED:
            known["provider"] = "netns"
