"""What the runtime knows of a lab: the plan that is written into `netns.json`, and what has been started of it.

No process is started here.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PLAN = Path("netns.json")
DRAFT = Path("/run/netns-draft.json")
KEY_DIRECTORY = Path("netns_files")
LOGIN_KEY = KEY_DIRECTORY / "id_ed25519"
STATE = Path("/run/netns-lab.json")
NODE_TAG = "remote-lab-node:"
_UP_LINE = ("node ", " is up")
_MAX_LINE = 200


@dataclass(frozen=True)
class Interface:
    """One end of a link."""

    node: str
    name: str


@dataclass(frozen=True)
class Link:
    """A link of the plan; with one interface a stub, with two a cable, with more a LAN."""

    index: int
    interfaces: tuple[Interface, ...]

    @property
    def is_cable(self) -> bool:
        return len(self.interfaces) == 2


@dataclass(frozen=True)
class Outline:
    """What is known of a node first."""

    name: str
    device: str


@dataclass(frozen=True)
class Node:
    """A node of the plan."""

    outline: Outline
    number: int
    management_interface: str
    management_mac: str
    management_addresses: tuple[str, ...]
    """With prefix length, as `ip address add` takes them."""
    loopbacks: tuple[str, ...]
    """Interfaces besides `lo` that need no link."""
    frr_daemons: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.outline.name


@dataclass(frozen=True)
class Plan:
    """The whole of `netns.json`."""

    management_address: str
    """Of the pod itself, with prefix length."""
    password: str
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    hosts: tuple[str, ...]
    """Lines for every node's /etc/hosts."""


@dataclass(frozen=True)
class Draft:
    """What is known before there is a plan."""

    password: str
    nodes: tuple[Outline, ...]

    def is_of(self, plan: Plan) -> bool:
        """Return whether nodes that were begun with this can be finished with a plan."""
        return self.password == plan.password and set(self.nodes) == {node.outline for node in plan.nodes}


@dataclass
class NodeState:
    """A started node: its PID 1 and the names of the processes that must live beside it."""

    pid: int
    services: list[str] = field(default_factory=list)


def read_plan(path: Path = PLAN) -> Plan:
    """Read what `planning.py` wrote.

    Raises:
        OSError: there is no plan, that is, no `netlab create` ran here.
        KeyError, ValueError: the plan is something else.
    """
    data = json.loads(path.read_text())
    names = {node["name"] for node in data["nodes"]}
    return Plan(
        management_address=data["management_address"],
        password=data["password"],
        nodes=tuple(_node(node) for node in data["nodes"]),
        links=tuple(_link(link, names) for link in data["links"]),
        hosts=tuple(data["hosts"]),
    )


def write_draft(draft: Draft) -> None:
    DRAFT.write_text(json.dumps(asdict(draft)))


def read_draft() -> Draft:
    """Read what `write_draft` wrote."""
    data = json.loads(DRAFT.read_text())
    return Draft(data["password"], tuple(Outline(**node) for node in data["nodes"]))


def _node(data: dict[str, Any]) -> Node:
    return Node(
        outline=Outline(data["name"], data["device"]),
        number=data["id"],
        management_interface=data["mgmt"]["ifname"],
        management_mac=data["mgmt"]["mac"],
        management_addresses=tuple(data["mgmt"]["addresses"]),
        loopbacks=tuple(data["loopbacks"]),
        frr_daemons=tuple(data["frr_daemons"]),
    )


def _link(data: dict[str, Any], managed_nodes: set[str]) -> Link:
    interfaces = (Interface(end["node"], end["ifname"]) for end in data["interfaces"] if end["node"] in managed_nodes)
    return Link(index=data["linkindex"], interfaces=tuple(interfaces))


def up_line(name: str) -> str:
    """Return what a boot says when the services of a node answer; `up_name` reads it."""
    return f"{_UP_LINE[0]}{name}{_UP_LINE[1]}"


def up_name(line: str) -> str | None:
    """Return the name of the node that a line says is up; None for any other line."""
    beginning, end = _UP_LINE
    is_one = line.startswith(beginning) and line.endswith(end) and len(line) <= _MAX_LINE
    return line[len(beginning) : -len(end)] if is_one else None


def read_state() -> dict[str, NodeState]:
    """Return the started nodes by name; empty when none was started."""
    try:
        data = json.loads(STATE.read_text())
    except FileNotFoundError:
        return {}
    return {name: NodeState(**node) for name, node in data.items()}


def write_state(state: dict[str, NodeState]) -> None:
    partial = STATE.with_suffix(".new")
    partial.write_text(json.dumps({name: asdict(node) for name, node in state.items()}))
    partial.replace(STATE)


@contextmanager
def changing_state() -> Iterator[dict[str, NodeState]]:
    """Give the started nodes to be changed and write them back; one at a time, also among threads."""
    with STATE.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = read_state()
        yield state
        write_state(state)


def running_names(node: NodeState) -> set[str]:
    """Return the names of the processes of a started node, cut to 15 bytes; empty when it is gone."""
    try:
        return processes_by_namespace().get(os.stat(f"/proc/{node.pid}/ns/pid").st_ino, set())
    except OSError:
        return set()


def processes_by_namespace() -> dict[int, set[str]]:
    """Return the names of all processes in this /proc, by inode of their pid namespace; names are cut to 15 bytes."""
    found: dict[int, set[str]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            namespace = os.stat(entry / "ns/pid").st_ino
            found.setdefault(namespace, set()).add((entry / "comm").read_text().strip())
        except OSError:
            continue  # ended meanwhile
    return found


def missing_services(name: str, node: NodeState, processes: dict[int, set[str]]) -> list[str]:
    """Return what of a started node no longer runs: `["the node"]`, or names of its services."""
    try:
        command = Path(f"/proc/{node.pid}/cmdline").read_bytes()
        namespace = os.stat(f"/proc/{node.pid}/ns/pid").st_ino
    except OSError:
        return ["the node"]
    if not command.startswith(f"{NODE_TAG}{name}\0".encode()):
        return ["the node"]
    return [service for service in node.services if service[:15] not in processes.get(namespace, set())]
