"""All nodes of a lab: started together, joined by their links, ended."""

from __future__ import annotations

import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from io import FileIO
from pathlib import Path

from remote_lab.netlab.netns import lab, links, node
from remote_lab.netlab.netns.credentials import Credentials, make_credentials
from remote_lab.netlab.netns.tools import TOOL_SECONDS

_PROCESS_END_SECONDS = 10.0


def up() -> None:
    """Start all nodes of the plan and join them; on failure none is left."""
    plan = lab.read_plan()
    down()
    draft = lab.Draft(plan.password, tuple(planned.outline for planned in plan.nodes))
    _Start(draft, _Orders(plan)).run()


def up_from_draft() -> None:
    """The same while netlab still works on the plan, begun with a draft of it.

    Standard input has a line `planned` when the plan is written, and a line `hurry` when netlab waits for the nodes: so
    long they leave it a processor, because nobody gets the lab before netlab is done.
    """
    down()
    try:
        _Start(lab.read_draft(), _Orders()).run()
    except _DraftIsVoid:
        up()


class _DraftIsVoid(Exception):
    """The plan has other nodes than its draft had."""


class _Orders:
    """What is known of netlab: its plan, if there is one, and whether it waits."""

    def __init__(self, plan: lab.Plan | None = None) -> None:
        self.plan = plan
        self.is_waiting = plan is not None

    @property
    def at_once(self) -> float:
        """How many nodes may work at the same time."""
        return math.inf if self.is_waiting else max(1, len(os.sched_getaffinity(0)) - 1)

    def fileno(self) -> int:
        return sys.stdin.fileno()

    def hear(self) -> None:
        """Read one line."""
        match FileIO(sys.stdin.fileno(), closefd=False).readline():
            case b"planned\n":
                self.plan = lab.read_plan()
            case b"hurry\n" if self.plan is not None:
                self.is_waiting = True
            case _:
                raise OSError("netlab made no plan")


class _Start:
    """The start of all nodes of a lab."""

    def __init__(self, draft: lab.Draft, orders: _Orders) -> None:
        self._draft = draft
        self._orders = orders
        self._to_begin = deque(draft.nodes)
        self._to_finish: deque[node.StartingNode] = deque()
        self._working: set[node.StartingNode] = set()
        self._state: dict[str, lab.NodeState] = {}
        self._planned: dict[str, lab.Node] | None = None
        """By name, once they are joined."""

    def run(self) -> None:
        """Return when the services of all nodes answer."""
        try:
            credentials = make_credentials(self._draft.password)
            with selectors.DefaultSelector() as selector:
                if not self._orders.is_waiting:
                    selector.register(self._orders, selectors.EVENT_READ)
                left = len(self._to_begin)
                while left or self._planned is None:
                    self._begin(credentials, selector)
                    self._finish()
                    if selector.get_map():
                        left -= sum(self._hear(key.fileobj, selector) for key, _ in selector.select())
        except BaseException:
            lab.write_state(self._state)
            down()
            raise
        lab.write_state(self._state)
        print(f"{len(self._state)} nodes run", flush=True)

    def _begin(self, credentials: Credentials, selector: selectors.BaseSelector) -> None:
        begun = []
        while self._to_begin and len(self._working) < self._orders.at_once:
            begun.append(node.start(self._to_begin.popleft(), credentials))
            self._working.add(begun[-1])
        for started in begun:
            started.settle()
            self._state[started.outline.name] = lab.NodeState(started.pid)
            self._to_finish.append(started)
            selector.register(started, selectors.EVENT_READ)

    def _finish(self) -> None:
        plan = self._orders.plan
        if plan is None or self._to_begin:
            return
        if self._planned is None:
            if not self._draft.is_of(plan):
                raise _DraftIsVoid
            lab.write_state(self._state)
            links.connect(plan, {name: known.pid for name, known in self._state.items()})
            self._planned = {known.name: known for known in plan.nodes}
        while self._to_finish and len(self._working) < self._orders.at_once:
            started = self._to_finish.popleft()
            started.finish(self._planned[started.outline.name], plan.hosts)
            self._working.add(started)

    def _hear(self, who: object, selector: selectors.BaseSelector) -> bool:
        """Take notice of what netlab or a node has to say; return whether a node is up."""
        if not isinstance(who, node.StartingNode):
            self._orders.hear()
            if self._orders.is_waiting:
                selector.unregister(self._orders)
            return False
        services = who.hear()
        self._working.discard(who)
        if services is None:
            return False
        # In this order: nodes that began later have the other end as well, and epoll would go on reporting it.
        selector.unregister(who)
        who.close()
        self._state[who.outline.name].services = services
        # The server reads this line to say how far the boot is.
        print(lab.up_line(who.outline.name), flush=True)
        return True


def down() -> None:
    """End all nodes; ending a node's PID 1 ends its processes, mounts and links."""
    for known in lab.read_state().values():
        try:
            os.kill(known.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    deadline = time.monotonic() + _PROCESS_END_SECONDS
    while any(Path(f"/proc/{known.pid}").exists() for known in lab.read_state().values()):
        if time.monotonic() > deadline:
            raise OSError(f"nodes still run after {_PROCESS_END_SECONDS:.0f} s")
        time.sleep(0.005)
    _delete_links_here()
    lab.STATE.unlink(missing_ok=True)


def _delete_links_here() -> None:
    """Delete what `up` made in this namespace; the kernel's own clean-up of veths can lag far behind."""
    present = sorted(os.listdir("/sys/class/net"))
    names = [name for name in present if name not in ("lo", links.UPLINK) and _is_bridge_or_veth(name)]
    commands = "".join(f"link delete {name}\n" for name in names)
    subprocess.run(
        ["/usr/sbin/ip", "-force", "-batch", "-"],
        input=commands,
        text=True,
        stderr=subprocess.DEVNULL,
        timeout=TOOL_SECONDS,
        check=False,
    )


def _is_bridge_or_veth(name: str) -> bool:
    # Virtual devices that modules of the kernel create by themselves (`tunl0`, `ifb0`) cannot be deleted.
    return name == links.MANAGEMENT_BRIDGE or name.startswith("lan") or name[:1] in "mlsx"
