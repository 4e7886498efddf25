"""What netlab knows of a lab, for `netns-lab`: first a draft, then the plan. `lab.py` reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from box import Box
from netsim.augment import devices
from netsim.augment.links import VIRTUAL_INTERFACE_TYPES
from netsim.utils import log

from remote_lab.netlab.netns.lab import PLAN, Draft, Outline

PROVIDER = "netns"
_IPV6_ONLY = ("ospf6d", "ripngd")
_USUAL_LENGTHS = {"ipv4": "24", "ipv6": "64"}


def draft(topology: Box, nodes: Iterable[Box]) -> Draft:
    """Return what is known of nodes before they are transformed.

    Args:
        topology: netlab's data (26.10).
        nodes: of it, those that netlab manages.
    """
    outlines = tuple(Outline(node.name, node.device) for node in _ours(topology, nodes))
    return Draft(_password(topology), outlines)


def write_plan(topology: Box, nodes: Iterable[Box], path: Path = PLAN) -> None:
    """Write the plan of a transformed topology, and say so as netlab does.

    Args:
        topology: netlab's data (26.10); nothing of it is changed.
        nodes: of it, those that netlab manages; of other providers as well, which have a name for the others.
        path: of the file.
    """
    path.write_text(json.dumps(_plan(topology, list(nodes)), indent=1) + "\n")
    log.status_created()
    print(f"provider configuration file: {path}", flush=True)


def _plan(topology: Box, nodes: list[Box]) -> dict[str, Any]:
    ours = _ours(topology, nodes)
    return {
        "management_address": str(topology.defaults.providers[PROVIDER].get("management_address", "")),
        "password": _password(topology),
        "nodes": [_node(node, topology) for node in ours],
        "hosts": [line for node in nodes for line in _hosts(node)],
        "links": list(_links(topology, {node.name for node in ours})),
    }


def _ours(topology: Box, nodes: Iterable[Box]) -> list[Box]:
    return [node for node in nodes if devices.get_provider(node, topology.defaults) == PROVIDER]


def _password(topology: Box) -> str:
    return str(topology.defaults.providers[PROVIDER].password)


def _node(node: Box, topology: Box) -> dict[str, Any]:
    management = node.get("mgmt", {})
    return {
        "name": node.name,
        "id": node.id,
        "device": node.device,
        "mgmt": {
            "ifname": management.get("ifname", "eth0"),
            "mac": str(management.get("mac", "")),
            "addresses": list(_management_addresses(management, topology.addressing.mgmt)),
        },
        "loopbacks": [one.ifname for one in node.get("interfaces", []) if one.get("type", "") == "loopback"],
        "frr_daemons": _frr_daemons(node, topology.defaults),
    }


def _management_addresses(management: Box, pool: Box) -> Iterator[str]:
    for family, usual_length in _USUAL_LENGTHS.items():
        if family in management:
            length = str(pool.get(family, "")).partition("/")[2] or usual_length
            yield f"{_address(management[family])}/{length}"


def _frr_daemons(node: Box, defaults: Box) -> list[str]:
    by_module = devices.get_node_group_var(node, "netlab_frr_daemons", defaults) or {}
    names = [name for module in node.get("module", []) for name in by_module.get(module, [])]
    # What speaks IPv6 alone is left out of a node that has none, unless somebody brings configurations of his own.
    if not node.get("af", {}).get("ipv6", False) and not node.get("config", []):
        names = [name for name in names if name not in _IPV6_ONLY]
    return names + list(node.get("frr", {}).get("daemons", []))


def _hosts(node: Box) -> Iterator[str]:
    for family in ("ipv4", "ipv6"):
        known = [node.get("loopback", {}).get(family), *(one.get(family) for one in node.get("interfaces", []))]
        address = next((_address(one) for one in known if isinstance(one, str) and one), "")
        yield f"{address} {node.name}" if address else f"# {node.name} has no {family}"


def _links(topology: Box, ours: set[str]) -> Iterator[dict[str, Any]]:
    for link in topology.get("links", []):
        ends = [end for end in link.get("interfaces", []) if end.node in ours]
        if ends and link.get("type", "") not in VIRTUAL_INTERFACE_TYPES:
            interfaces = [{"node": end.node, "ifname": end.get("ifname", "")} for end in ends]
            yield {"linkindex": link.linkindex, "interfaces": interfaces}


def _address(value: object) -> str:
    return str(value).partition("/")[0]
