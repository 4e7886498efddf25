"""Whether real labs can be measured here, and netlab by hand in a sandbox."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from bench import ROOT
from remote_lab.netlab.pod_site import missing_requirements

NO_LABS = "real labs were not measured: {}"


def can_run_labs() -> bool:
    return not missing_requirements()


def why_no_labs() -> str:
    return NO_LABS.format("; ".join(missing_requirements()))


def netlab_by_hand_seconds(folder: Path, topology: Path, command: str) -> float:
    """How long plain `netlab up` or `netlab create` takes in a sandbox of its own."""
    arguments = [str(ROOT / "bench" / "actors" / "pod.py"), str(folder / "by-hand"), str(topology), command]
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"netlab {command} by hand: {done.stderr[-2000:]}")
    return float(json.loads(done.stdout))
