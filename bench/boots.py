"""f. Real labs: FRR routers in a ring that speak OSPF, from `POST /lab` to its answer, beside plain `netlab up`."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import requests

from bench.acquires import Desk
from bench.options import Options
from bench.pods import can_run_labs, netlab_by_hand_seconds, why_no_labs
from bench.report import FLOOR, OURS, Goal, Report, Row
from bench.stats import median, spread
from bench.talk import write_topology
from bench.targets import trees

GOALS = {8: Goal(2.5), 32: Goal(8.0)}
FIRST_PHASE = "claimed"
CREATES = 2
"""How often netlab's own share is measured alone."""


class Phases:
    """What `GET /lab` says of a boot while it goes on, and since when."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._ended = threading.Event()
        self._seen: list[tuple[str, float]] = []
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Phases:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.is_set():
            try:
                answer = self._desk.target.call("GET", "/lab?wait=2", self._desk.session_id).json()
            except requests.RequestException:
                return  # whoever waits for the boot says so
            phase = answer.get("phase") or FIRST_PHASE
            if answer.get("state") == "starting" and (not self._seen or self._seen[-1][0] != phase):
                self._seen.append((phase, time.monotonic()))
            if answer.get("running"):
                return

    def seconds(self, ended: float) -> dict[str, float]:
        """How long each took, the last one until the answer."""
        ends = [began for _, began in self._seen[1:]] + [ended]
        return {phase: end - began for (phase, began), end in zip(self._seen, ends, strict=False)}


def measure(report: Report, options: Options, folder: Path, _peer_python: str | None) -> None:
    """Sizes take turns in each repetition, and so do server and floor."""
    if not can_run_labs():
        report.notes.append(why_no_labs())
        return
    sizes = {n: write_topology(folder / f"ring-{n}.yml", n, real=True) for n in options.routers}
    times: dict[int, dict[str, list[float]]] = {n: {} for n in sizes}
    creates: dict[int, list[float]] = {n: [] for n in sizes}
    phases: dict[int, dict[str, list[float]]] = {n: {} for n in sizes}
    smallest = min(sizes)
    by_client: dict[str, list[float]] = {}
    with trees(folder, options, real_labs=True) as targets:
        desks = [Desk(target) for target in targets]
        for _ in range(options.repetitions):
            for desk in desks:
                by_client.setdefault(desk.target.name, []).append(desk.acquire_by_client_seconds(sizes[smallest]))
                desk.destroy()
            for size, topology in sizes.items():
                for desk in desks:
                    with Phases(desk) as watch:
                        seconds = desk.acquire_seconds(topology)
                        ended = time.monotonic()
                    times[size].setdefault(desk.target.name, []).append(seconds)
                    if desk.target.name == OURS:
                        for phase, took in watch.seconds(ended).items():
                            phases[size].setdefault(phase, []).append(took)
                    desk.destroy()
                times[size].setdefault(FLOOR, []).append(netlab_by_hand_seconds(folder, topology, "up"))
                if len(creates[size]) < CREATES:
                    creates[size].append(netlab_by_hand_seconds(folder, topology, "create"))
    report.add([Row("f", f"boot of {smallest} routers, RemoteLabClient.acquire", "s", by_client)])
    report.series["boot"] = {
        str(size): {name: median(some) for name, some in found.items()} for size, found in times.items()
    }
    report.series["phases"] = {
        str(size): {phase: median(some) for phase, some in found.items()} for size, found in phases.items()
    }
    for size, found in times.items():
        goals = (GOALS[size],) if size in GOALS else ()
        report.add([Row("f", f"boot of {size} routers (floor: netlab up by hand)", "s", found, goals, f"boot {size}")])
        report.add([Row("f", f"netlab create of {size} routers by hand", "s", {FLOOR: creates[size]})])
        steps = "; ".join(f"{phase} {spread(some)}" for phase, some in phases[size].items())
        report.notes.append(f"phases of {size} routers, s: {steps}")
