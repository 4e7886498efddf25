"""The cables of a lab: which interfaces exist and what they are joined to, as commands for one `ip -batch`.

A cable is a veth straight between two nodes. Bridges (of LANs and of the management network) and the far ends of stubs
live in the pod's own network namespace. Stubs are veths as well, because not every kernel has `dummy`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from remote_lab.netlab.netns.lab import Link, Plan

MANAGEMENT_BRIDGE = "mgmt"
UPLINK = "uplink"
"""The pod's end of the veth to the host; the host puts it here."""
_BRIDGE = "type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
_BATCH_SECONDS = 60


class LinkError(Exception):
    """`ip` refused a link; the message is its own."""


def connect(plan: Plan, pids: Mapping[str, int]) -> None:
    """Make all links of a lab.

    Args:
        plan: the lab.
        pids: node name -> its PID 1, in this pid namespace.
    """
    commands = "\n".join([*_management(plan, pids), *_links(plan, pids), *_loopbacks(plan, pids), ""])
    result = subprocess.run(
        ["/usr/sbin/ip", "-batch", "-"],
        input=commands,
        capture_output=True,
        text=True,
        timeout=_BATCH_SECONDS,
        check=False,
    )
    if result.returncode:
        raise LinkError(f"cannot make the links: {result.stderr.strip()}")


def _management(plan: Plan, pids: Mapping[str, int]) -> Iterator[str]:
    yield f"link add {MANAGEMENT_BRIDGE} {_BRIDGE}"
    if Path("/sys/class/net", UPLINK).exists():  # without root there is none, see `rootless/`
        yield f"link set {UPLINK} master {MANAGEMENT_BRIDGE} up"
    yield f"address add {plan.management_address} dev {MANAGEMENT_BRIDGE}"
    yield f"link set {MANAGEMENT_BRIDGE} up"
    for node in plan.nodes:
        here = f"m{node.number}"
        mac = f"address {node.management_mac}" if node.management_mac else ""
        yield f"link add {node.management_interface} netns {pids[node.name]} {mac} type veth peer name {here}"
        yield f"link set {here} master {MANAGEMENT_BRIDGE} up"


def _links(plan: Plan, pids: Mapping[str, int]) -> Iterator[str]:
    for link in plan.links:
        if link.is_cable:
            one, other = link.interfaces
            yield (
                f"link add {one.name} netns {pids[one.node]} type veth peer name {other.name} netns {pids[other.node]}"
            )
        elif len(link.interfaces) == 1:
            yield from _stub(link.interfaces[0].name, pids[link.interfaces[0].node], f"s{link.index}")
        elif link.interfaces:
            yield from _lan(link, pids)


def _lan(link: Link, pids: Mapping[str, int]) -> Iterator[str]:
    bridge = f"lan{link.index}"
    yield f"link add {bridge} {_BRIDGE}"
    yield f"link set {bridge} up"
    for position, interface in enumerate(link.interfaces):
        here = f"l{link.index}p{position}"
        yield f"link add {interface.name} netns {pids[interface.node]} type veth peer name {here}"
        yield f"link set {here} master {bridge} up"


def _loopbacks(plan: Plan, pids: Mapping[str, int]) -> Iterator[str]:
    for node in plan.nodes:
        for position, name in enumerate(node.loopbacks):
            yield from _stub(name, pids[node.name], f"x{node.number}i{position}")


def _stub(name: str, pid: int, here: str) -> Iterator[str]:
    yield f"link add {name} netns {pid} type veth peer name {here}"
    yield f"link set {here} up"
