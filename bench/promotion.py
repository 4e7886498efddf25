"""b. From the answer to `DELETE /session` of the one in front to the next client's constructor returning."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

from bench.byhand import cycle_by_hand_seconds
from bench.options import Options
from bench.report import FLOOR, OURS, PEER, Goal, Report, Row
from bench.stats import median, percentile
from bench.talk import hear, write_topology
from bench.targets import Target, peer, standin, trees

PAUSE_SECONDS = (0.03, 0.08)
PEER_PAUSE_SECONDS = (0.0, 5.0)
"""It looks every 5 s: the end in front may come at any moment between two looks."""

DOWNS = 5

Blocks = dict[str, list[list[float]]]
"""Milliseconds of each promotion, block by block."""


def measure(report: Report, options: Options, folder: Path, peer_python: str | None) -> None:
    """In blocks that take turns; the peer meanwhile, as it sleeps nearly all the time."""
    topology = write_topology(folder / "pair.yml", 2)
    netlab = standin(folder)
    each = -(-options.promotions // options.repetitions)
    with ExitStack() as stack, ThreadPoolExecutor(1) as aside:
        targets = stack.enter_context(trees(folder, options))
        theirs = None
        if peer_python:
            other = stack.enter_context(peer(folder, peer_python))
            theirs = aside.submit(hear, other, "promotions.py", options.peer_promotions, *PEER_PAUSE_SECONDS)
        plain: Blocks = {target.name: [] for target in targets}
        with_lab: Blocks = {target.name: [] for target in targets}
        for _ in range(options.repetitions):
            for target in targets:
                plain[target.name].append(_promote(target, each))
                with_lab[target.name].append(_promote(target, each, topology))
            downs = [cycle_by_hand_seconds(netlab, folder, topology)[-1] * 1000 for _ in range(DOWNS)]
            with_lab.setdefault(FLOOR, []).append(downs)
        if theirs:
            plain[PEER] = [theirs.result()]
    report.series["promotion"] = {name: list(chain.from_iterable(blocks)) for name, blocks in plain.items()}
    report.add(_rows("without a lab", plain, "promotion"))
    report.add(_rows("with a lab that goes down (floor: netlab down by hand)", with_lab))


def _promote(target: Target, count: int, *topology: Path) -> list[float]:
    found: list[float] = hear(target, "promotions.py", count, *PAUSE_SECONDS, *topology)
    return found


def _rows(what: str, times: Blocks, key: str = "") -> list[Row]:
    whole = {name: list(chain.from_iterable(blocks)) for name, blocks in times.items()}
    middles = {name: [median(block) for block in blocks] for name, blocks in times.items()}
    tails = {name: [percentile(values, 0.99)] for name, values in whole.items()}
    worst = {name: [max(values)] for name, values in whole.items()}
    return [
        Row("b", f"promotion {what}, median of {len(whole[OURS])}", "ms", middles, (Goal(20),), key),
        Row("b", f"promotion {what}, p99", "ms", tails),
        Row("b", f"promotion {what}, worst", "ms", worst, (Goal(200),)),
    ]
