"""g. Ten CI jobs that come together, each with a real lab of its own and a test of a few seconds.

A job: `POST /session`, wait for the turn as the client does, `POST /lab`, test, `DELETE /session`.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from bench.options import Options
from bench.pods import can_run_labs, why_no_labs
from bench.report import FLOOR, Report, Row
from bench.talk import write_topology
from bench.targets import Target, has_setting, ours, roots

VARIANTS: dict[str, dict[str, Any]] = {
    "1 slot": {"SLOTS": 1},
    "1 slot with overlap": {"SLOTS": 1, "AHEAD": 1},
    "2 slots": {"SLOTS": 2},
    "4 slots": {"SLOTS": 4},
}
KEYS = {"1 slot with overlap": "overlap"}
HOLD_SECONDS = 25
OVERLAP = "AHEAD"
"""A server with this setting is told the topology with `POST /session`."""


def measure(report: Report, options: Options, folder: Path, _peer_python: str | None) -> None:
    """Variant after variant; jobs of two servers at once would measure each other."""
    if not can_run_labs():
        report.notes.append(why_no_labs())
        return
    for variant, settings in VARIANTS.items():
        values: dict[str, list[float]] = {}
        for tree in roots(options):
            if OVERLAP in settings and not has_setting(tree, OVERLAP):
                report.notes.append(f"{variant}: {tree.name} has no REMOTE_LAB_{OVERLAP}")
                continue
            with ours(folder, tree, real_labs=True, **settings) as target:
                values[target.name] = [_run(target, options, folder, tells_topology=OVERLAP in settings)]
        pure = options.jobs * options.test_seconds / settings["SLOTS"]
        what = (
            f"{options.jobs} jobs of {options.job_routers} routers and {options.test_seconds:g} s of tests, {variant}"
        )
        report.add(
            [Row("g", f"{what} (floor: the tests alone)", "s", {**values, FLOOR: [pure]}, (), KEYS.get(variant, ""))]
        )
        report.series.setdefault("makespan", {})[variant] = {**{n: v[0] for n, v in values.items()}, FLOOR: pure}


class _Job(threading.Thread):
    def __init__(self, target: Target, topology: Path, options: Options, *, tells_topology: bool) -> None:
        super().__init__(daemon=True)
        self._target, self._topology, self._options = target, topology, options
        self._tells_topology = tells_topology
        self.problem: Exception | None = None

    def run(self) -> None:
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits for the thread is told
            self.problem = error

    def _work(self) -> None:
        upload = {"topology": (self._topology.name, self._topology.read_bytes())}
        answer = self._target.call("POST", "/session", files=upload if self._tells_topology else None)
        answer.raise_for_status()
        session_id = answer.json()["session_id"]
        while (answer := self._look(session_id)).json()["status"] != "active":
            time.sleep(float(answer.headers.get("Retry-After", 0)))
        self._target.call("POST", "/lab", session_id, files=upload, data={"reuse": "true"}).raise_for_status()
        time.sleep(self._options.test_seconds)
        self._target.call("DELETE", f"/session/{session_id}").raise_for_status()

    def _look(self, session_id: str) -> Any:
        answer = self._target.call("GET", f"/session/{session_id}?wait={HOLD_SECONDS}")
        answer.raise_for_status()
        return answer


def _run(target: Target, options: Options, folder: Path, *, tells_topology: bool) -> float:
    jobs = []
    for number in range(options.jobs):
        topology = write_topology(folder / f"job-{number}.yml", options.job_routers, real=True)
        topology.write_text(f"# job {number}\n{topology.read_text()}")
        jobs.append(_Job(target, topology, options, tells_topology=tells_topology))
    began = time.monotonic()
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    took = time.monotonic() - began
    for job in jobs:
        if job.problem is not None:
            raise job.problem
    return took
