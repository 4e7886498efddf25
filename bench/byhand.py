"""netlab called by hand: what is left when no server is in between."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

CYCLE = (
    ("up", "-p", "clab", "--plugin", "multilab", "-s", "defaults.multilab.id=1", "./{topology}"),
    ("inspect", "--quiet", "--format", "json", "devices"),
    ("down", "--cleanup"),
)
"""What one lab needs of the stand-in."""


def cycle_by_hand_seconds(netlab: Path, folder: Path, topology: Path) -> list[float]:
    """How long each of the calls takes that bring a lab up, read its devices and take it down."""
    calls = [[argument.format(topology=topology.name) for argument in call] for call in CYCLE]
    return repeat_by_hand_seconds(netlab, folder, topology, calls)


def repeat_by_hand_seconds(netlab: Path, folder: Path, topology: Path, calls: Sequence[Sequence[str]]) -> list[float]:
    """How long each of these calls takes in a folder with this topology, its process included."""
    with tempfile.TemporaryDirectory(dir=folder) as directory:
        shutil.copy(topology, directory)
        return [_seconds(netlab, Path(directory), arguments) for arguments in calls]


def _seconds(netlab: Path, directory: Path, arguments: Sequence[str]) -> float:
    began = time.monotonic()
    subprocess.run([netlab, *arguments], cwd=directory, capture_output=True, stdin=subprocess.DEVNULL, check=True)
    return time.monotonic() - began
