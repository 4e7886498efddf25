"""Runs the parts that `BENCH` names, all without it, and shows what they found; see options.py."""

from __future__ import annotations

import os
import platform
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from bench import (
    RESULTS,
    acquires,
    arrivals,
    boots,
    crowd,
    day,
    idle,
    load,
    makespan,
    polls,
    profiles,
    promotion,
    targets,
)
from bench.options import PARTS, PROFILE, Options
from bench.report import Report
from remote_lab import __version__

Part = Callable[[Report, Options, Path, str | None], None]
MEASURES: dict[str, Part] = {
    "a": polls.measure,
    "b": promotion.measure,
    "c": arrivals.measure,
    "d": crowd.measure,
    "e": acquires.measure,
    "f": boots.measure,
    "g": makespan.measure,
    "h": idle.measure,
    "i": day.measure,
    PROFILE: profiles.measure,
}


def main() -> None:
    """Measure, print, write `.bench/`; the exit status says only whether everything could be measured."""
    # As Ctrl-C: what was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        options = Options.from_environment()
    except ValueError as error:
        sys.exit(f"bench: {error}")
    report = Report(_about())
    peer_python, why_not = targets.find_peer() if options.with_peer else (None, "")
    report.notes += [why_not] if why_not else []
    report.notes += [] if load.has_wrk() else [load.MISSING]
    failed: list[str] = []
    began = time.monotonic()
    for part in options.parts:
        print(f"==> {PARTS.get(part, 'Profiles')} ({time.monotonic() - began:.0f} s)", flush=True)
        try:
            with tempfile.TemporaryDirectory(prefix="rlab-bench-", dir=options.folder) as folder:
                MEASURES[part](report, options, Path(folder), peer_python)
        except Exception as error:  # noqa: BLE001 - what the other parts find is not lost for it
            traceback.print_exc()
            failed.append(part)
            report.notes.append(f"part {part} was not measured: {type(error).__name__}: {error}")
        _write(report)
    report.about["took"] = f"{time.monotonic() - began:.0f} s"
    if report.rows or report.notes:
        _write(report)
        _draw(report, options)
        print(f"\n{report.as_text()}\n\nAs JSON and for the docs: {RESULTS}/bench.json, table.rst")
    sys.exit(f"bench: not measured: {', '.join(failed)}" if failed else 0)


def _about() -> dict[str, str]:
    [model, *_] = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith(("model name", "CPU part"))
    ] or [platform.machine()]
    return {
        "version": __version__,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "machine": f"{os.cpu_count()} cores {model}".strip(),
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "load at the start": f"{os.getloadavg()[0]:.1f}",
    }


def _write(report: Report) -> None:
    """After each part, so that a run that is given up leaves something."""
    if not report.rows and not report.notes:
        return
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "bench.json").write_text(report.as_json() + "\n")
    (RESULTS / "table.txt").write_text(report.as_text() + "\n")
    (RESULTS / "table.rst").write_text(report.as_rst())


def _draw(report: Report, options: Options) -> None:
    if options.with_plots:
        from bench import docs, plots

        plots.draw(report)
        docs.update(report)


if __name__ == "__main__":
    main()
