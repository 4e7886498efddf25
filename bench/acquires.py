"""e. What `POST /lab` costs on top of netlab's own time, and what it costs to share a lab that runs.

The stand-in for netlab boots nothing, so nearly all that its calls take is processes that start. The floor is the calls
that the server made, made again by hand right after.
"""

from __future__ import annotations

import http.client
import json
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import requests
from harness import wait_until

from bench.byhand import repeat_by_hand_seconds
from bench.options import Options
from bench.pods import can_run_labs
from bench.report import FLOOR, OURS, PEER, Goal, Report, Row
from bench.stats import percentile
from bench.talk import write_topology
from bench.targets import Target, peer, standin, trees
from remote_lab.client import RemoteLabClient


class Desk:
    """One session of one server, which acquires and gives back."""

    def __init__(self, target: Target, calls: Path | None = None) -> None:
        self.target = target
        self._calls = calls
        self.session_id = target.open_session()
        target.wait_active(self.session_id)

    def acquire_seconds(self, topology: Path) -> float:
        """`POST /lab` on a connection of its own, from its first byte to the answer's last."""
        upload = requests.Request(
            "POST", self.target.url, files={"topology": (topology.name, topology.read_bytes())}, data={"reuse": "true"}
        ).prepare()
        headers = {"X-Session-ID": self.session_id, "Content-Type": str(upload.headers["Content-Type"])}
        connection = http.client.HTTPConnection(urlsplit(self.target.url).netloc, timeout=600)
        began = time.monotonic()
        connection.request("POST", "/lab", upload.body, headers)
        answer = connection.getresponse()
        body = answer.read()
        seconds = time.monotonic() - began
        connection.close()
        assert answer.status == 200, body
        return seconds

    def acquire_by_client_seconds(self, topology: Path) -> float:
        """`RemoteLabClient.acquire` in the same session, which follows the boot with held calls."""
        with RemoteLabClient(self.target.url, session_id=self.session_id) as client:
            began = time.monotonic()
            client.acquire(topology, reuse=True)
            return time.monotonic() - began

    def destroy(self) -> None:
        """Take the lab down, and wait until it is."""
        self.target.call("DELETE", "/lab", self.session_id)
        # The peer's health names no labs; its answer says that the lab is down.
        wait_until(lambda: not self.target.call("GET", "/debug/health").json().get("labs"), "the lab is down")

    def calls(self) -> list[list[str]]:
        """What the stand-in was asked since the last time."""
        if self._calls is None or not self._calls.exists():
            return []
        found = [json.loads(line) for line in self._calls.read_text().splitlines()]
        self._calls.unlink()
        return found


def measure(report: Report, options: Options, folder: Path, peer_python: str | None) -> None:
    """Server after server in each repetition, and the floor between them."""
    with ExitStack() as stack:
        desks = {one.name: Desk(one, one.calls) for one in stack.enter_context(trees(folder, options))}
        if peer_python:
            desks[PEER] = Desk(stack.enter_context(peer(folder, peer_python)))
        for nodes in options.nodes:
            report.add(_with_standin(desks, nodes, options, folder))
    if can_run_labs():
        with trees(folder, options, real_labs=True) as targets:
            report.add(_attach_real([Desk(one) for one in targets], options, folder))


def _with_standin(desks: dict[str, Desk], nodes: int, options: Options, folder: Path) -> list[Row]:
    topology = write_topology(folder / f"nodes-{nodes}.yml", nodes)
    netlab = standin(folder)
    totals: dict[str, list[float]] = {name: [] for name in (*desks, FLOOR)}
    added: dict[str, list[float]] = {name: [] for name in desks if name != PEER}
    attaches: dict[str, list[float]] = {name: [] for name in desks}
    for repetition in range(options.acquires):
        for name, desk in desks.items():
            if name == PEER and repetition >= options.repetitions:
                continue  # it starts one netlab for each node
            desk.calls()
            seconds = desk.acquire_seconds(topology)
            totals[name].append(seconds * 1000)
            if name != PEER:
                floor = sum(repeat_by_hand_seconds(netlab, folder, topology, desk.calls()))
                added[name].append((seconds - floor) * 1000)
                if name == OURS:
                    totals[FLOOR].append(floor * 1000)
            attaches[name] += [
                desk.acquire_seconds(topology) * 1000 for _ in range(options.attaches // options.acquires)
            ]
            desk.destroy()
    return [
        Row("e", f"POST /lab of {nodes} nodes, stand-in (floor: its calls by hand)", "ms", totals),
        Row("e", f"of it ours, {nodes} nodes", "ms", added, (Goal(100),), "acquire" if nodes == 100 else ""),
        *_attach_rows(f"{nodes} nodes, stand-in", attaches),
    ]


def _attach_real(desks: list[Desk], options: Options, folder: Path) -> list[Row]:
    topology = write_topology(folder / "real-pair.yml", 2, real=True)
    attaches: dict[str, list[float]] = {}
    for desk in desks:
        desk.acquire_seconds(topology)
        attaches[desk.target.name] = [desk.acquire_seconds(topology) * 1000 for _ in range(options.attaches)]
        desk.destroy()
    return _attach_rows("2 real routers", attaches)


def _attach_rows(what: str, attaches: dict[str, list[float]]) -> list[Row]:
    return [
        Row("e", f"warm attach, {what}", "ms", attaches, (Goal(10),), "attach" if "real" in what else ""),
        Row(
            "e", f"warm attach, {what}, p99", "ms", {name: [percentile(some, 0.99)] for name, some in attaches.items()}
        ),
    ]
