"""c. Ten clients that arrive together; each gets a lab that boots at once, and is done with it at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from bench.byhand import cycle_by_hand_seconds
from bench.options import Options
from bench.report import FLOOR, PEER, Goal, Report, Row
from bench.talk import hear, write_topology
from bench.targets import peer, standin, trees


def measure(report: Report, options: Options, folder: Path, peer_python: str | None) -> None:
    """The peer is asked once, meanwhile: it sleeps nearly all the time."""
    topology = write_topology(folder / "pair.yml", 2)
    netlab = standin(folder)
    with ExitStack() as stack, ThreadPoolExecutor(1) as aside:
        targets = stack.enter_context(trees(folder, options))
        theirs = None
        if peer_python:
            other = stack.enter_context(peer(folder, peer_python))
            theirs = aside.submit(hear, other, "arrivals.py", options.arrivals, topology)
        values: dict[str, list[float]] = {target.name: [] for target in targets}
        values[FLOOR] = []
        for _ in range(options.repetitions):
            for target in targets:
                values[target.name].append(max(hear(target, "arrivals.py", options.arrivals, topology)))
            values[FLOOR].append(options.arrivals * sum(cycle_by_hand_seconds(netlab, folder, topology)))
        if theirs:
            values[PEER] = [max(theirs.result())]
    what = f"{options.arrivals} clients with instant labs (floor: the stand-in's calls by hand)"
    report.add([Row("c", what, "s", values, (Goal(1.5),) if options.arrivals == 10 else (), "ten")])
