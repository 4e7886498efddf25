"""The program behind `make bench`, in its small form: it must not rot between the runs that count."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from harness import ROOT

PROMOTIONS = 3


def test_it_measures_promotion_and_says_what_became_of_the_goals(tmp_path: Path) -> None:
    """Table, JSON and the docs' table have the same rows, from servers, clients and a stand-in that really ran."""
    environment = {**os.environ, "BENCH": "b", "BENCH_SMALL": "1", "BENCH_RESULTS": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "bench"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "bench.json").read_text())
    rows = {row["what"]: row for row in report["rows"]}
    assert list(rows) == [
        f"promotion {lab}, {kind}"
        for lab in ("without a lab", "with a lab that goes down (floor: netlab down by hand)")
        for kind in (f"median of {PROMOTIONS}", "p99", "worst")
    ]
    assert len(report["series"]["promotion"]["ours"]) == PROMOTIONS
    assert all(row["values"]["ours"] and row["unit"] == "ms" for row in rows.values())
    assert all(
        ("met" in row["goals"] or "MISSED" in row["goals"]) == ("p99" not in row["what"]) for row in rows.values()
    )
    for table in (done.stdout, (tmp_path / "table.rst").read_text()):
        assert [what for what in rows if what not in table] == []


def test_a_part_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """Nobody waits ten minutes to find a typing error."""
    environment = {**os.environ, "BENCH": "a,z", "BENCH_RESULTS": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "bench"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "BENCH=z" in done.stderr
