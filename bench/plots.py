"""Draws docs/benchmarks/*.svg from what a run found; only when asked to, as pictures differ with every run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

from bench import ROOT
from bench.report import BEFORE, FLOOR, OURS, PEER, Report

FOLDER = ROOT / "docs" / "benchmarks"
NAMES = {OURS: "Remote Lab Manager", BEFORE: "before", FLOOR: "floor", PEER: "neops-remote-lab 1.4.0"}
COLORS = {OURS: "#1f77b4", BEFORE: "#9ecae1", FLOOR: "#7f7f7f", PEER: "#d62728"}
SIZE = (7.0, 3.6)


def draw(report: Report) -> list[Path]:
    """Draw whatever there are numbers for; returns the files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    mpl.rcParams["svg.hashsalt"] = "bench"  # the same numbers are the same file
    mpl.rcParams["svg.fonttype"] = "none"
    drawn = []
    rates = {row.what: row.values for row in report.rows if row.part == "a" and row.unit == "requests/s"}
    plots: tuple[tuple[str, Callable[[Any, Any], None], Any], ...] = (
        ("polls", _rates, rates),
        ("promotion", _distribution, report.series.get("promotion")),
        ("lateness", _distribution, _late(report)),
        ("boots", _boots, report.series.get("boot")),
        ("makespan", _makespan, report.series.get("makespan")),
        ("day", _day, None if "i" in report.cut_short else report.series.get("day")),
    )
    for name, plot, data in plots:
        if data:
            figure, axes = plt.subplots(figsize=SIZE, layout="constrained")
            plot(axes, data)
            path = FOLDER / f"{name}.svg"
            figure.savefig(path, metadata={"Date": None})
            plt.close(figure)
            drawn.append(path)
    return drawn


def _late(report: Report) -> dict[str, list[float]]:
    found = {name.split()[1]: data["late"] for name, data in report.series.items() if name.startswith("crowd ")}
    return {name: [seconds * 1000 for seconds in late] for name, late in found.items() if late}


def _rates(axes: Any, data: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    whats = list(data)
    columns = [name for name in NAMES if any(name in values for values in data.values())]
    height = 0.8 / len(columns)
    for index, name in enumerate(columns):
        found = [sorted(data[what].get(name, [0.0])) for what in whats]
        middles = [some[len(some) // 2] for some in found]
        spans = [[middle - some[0] for middle, some in zip(middles, found, strict=True)],
                 [some[-1] - middle for middle, some in zip(middles, found, strict=True)]]  # fmt: skip
        places = [place + index * height for place in range(len(whats))]
        axes.barh(places, middles, height, xerr=spans, color=COLORS[name], label=NAMES[name])
    axes.set_yticks([place + 0.3 for place in range(len(whats))], whats)
    axes.invert_yaxis()
    axes.set_xlabel("requests per second at 16 connections")
    axes.legend(loc="lower right")


def _distribution(axes: Any, data: Mapping[str, Sequence[float]]) -> None:
    for name, values in data.items():
        ordered = [max(value, 0.1) for value in sorted(values)]
        parts = [100 * (index + 1) / len(ordered) for index in range(len(ordered))]
        axes.step(ordered, parts, where="post", color=COLORS[name], label=NAMES[name])
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds from the end in front")
    axes.set_ylabel("% of turns that have begun")
    axes.legend()


def _boots(axes: Any, data: Mapping[str, Mapping[str, float]]) -> None:
    for name in (one for one in NAMES if any(one in values for values in data.values())):
        points = [(int(size), values[name]) for size, values in data.items() if name in values]
        label = "netlab up by hand" if name == FLOOR else NAMES[name]
        axes.plot(*zip(*points, strict=True), marker="o", color=COLORS[name], label=label)
    axes.set_xlabel("FRR routers with OSPF")
    axes.set_ylabel("seconds to all devices")
    axes.set_ylim(bottom=0)
    axes.legend()


def _makespan(axes: Any, data: Mapping[str, Mapping[str, float]]) -> None:
    for name in (one for one in NAMES if any(one in values for values in data.values())):
        label = "the tests alone" if name == FLOOR else NAMES[name]
        points = [(variant, values[name]) for variant, values in data.items() if name in values]
        axes.plot(*zip(*points, strict=True), marker="o", linestyle="", color=COLORS[name], label=label)
    axes.set_ylabel("seconds until ten jobs are done")
    axes.set_ylim(bottom=0)
    axes.legend()


def _day(axes: Any, data: Sequence[Mapping[str, float]]) -> None:
    for key in ("RSS", "database", "log", "open files"):
        axes.plot([one["sessions"] for one in data], [one[key] for one in data], marker="o", label=key)
    axes.set_xlabel("sessions that have passed")
    axes.set_ylabel("MiB; open files: number")
    axes.set_ylim(bottom=0)
    axes.legend()
