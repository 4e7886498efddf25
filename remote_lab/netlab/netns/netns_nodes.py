"""netlab's plugin `netns_nodes`: whatever provider a topology asks for, its nodes run in namespaces of this pod.

Topologies that were written for a containerlab host say `provider: clab` of single nodes; a pod has neither Docker nor
libvirt. Nodes of the provider `external` stay: they are somebody else's hardware.

It also tells who will start the nodes what is known of them as soon as it is, long before netlab has written its files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from remote_lab.netlab.netns import lab, planning

tell: Callable[[str], None] | None = None
"""Called with `drafted`, then with `planned`; set where `netlab up` goes on to start the nodes."""
_REPLACED = ("clab", "libvirt", "virtualbox")


def init(topology: Any) -> None:
    """Called by netlab after groups are expanded and before the providers of nodes are looked at (netlab 26.10)."""
    for known in (topology, *topology.get("nodes", {}).values(), *topology.get("groups", {}).values()):
        if isinstance(known, dict) and known.get("provider") in _REPLACED:
            known["provider"] = planning.PROVIDER


def pre_transform(topology: Any) -> None:
    """Called by netlab when each node has its device and its provider (netlab 26.10)."""
    if tell is not None:
        lab.write_draft(planning.draft(topology, _managed(topology)))
        tell("drafted")


def cleanup(topology: Any) -> None:
    """Called by netlab as the last step of the transformation (netlab 26.10)."""
    if tell is not None:
        planning.write_plan(topology, _managed(topology))
        tell("planned")
        _spare_the_same_again(topology)


def _spare_the_same_again(topology: Any) -> None:
    """Leave out the output that would write this plan once more, for which netlab copies its data three times."""
    outputs = topology.defaults.netlab.create.output
    if isinstance(outputs, dict) and not topology[planning.PROVIDER].providers:
        outputs.pop("provider", None)


def _managed(topology: Any) -> list[Any]:
    return [node for node in topology.nodes.values() if not node.get("unmanaged", False)]
