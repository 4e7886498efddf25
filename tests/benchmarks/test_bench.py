"""The program behind `make bench`, in its small form: it must not rot between the runs that count."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
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


def test_a_run_of_some_parts_replaces_their_tables_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page keeps what the whole run found, and says which table is of another run."""
    monkeypatch.syspath_prepend(ROOT)
    from bench import docs
    from bench.options import PARTS
    from bench.report import OURS, Report, Row

    page = tmp_path / "page.rst"
    page.write_text(f"Top\n{docs._TABLE[0]}old\n{docs._TABLE[1]}History\n{docs._HISTORY_END}End\n")

    def run(parts: str, value: float, cut_short: str = "") -> str:
        rows = [Row(part, f"row of {part}", "s", {OURS: [value]}) for part in parts]
        about, notes = {"date": f"day {value:g}"}, [f"note {value:g}"]
        docs.update(Report(about, rows, notes=notes, cut_short={*cut_short}), page)
        return page.read_text()

    whole = run("".join(PARTS), 1)
    assert "old" not in whole
    assert whole.count("Date day 1") == whole.count("* note 1") == 1
    for again in (2, 3):
        mixed = run("ci", again)
        assert [mixed.count(f"     - {value}.00") for value in (1, again)] == [len(PARTS) - 2, 2]
        assert (mixed.count("Date day 1"), mixed.count(f"In a run of its own. Date day {again}")) == (1, 2)
        assert (mixed.count("* note 1"), mixed.count(f"* note {again}")) == (1, 2)
    parts = [line[2] for line in mixed.splitlines() if line.startswith("**")]
    assert parts == list(PARTS)
    assert run("".join(PARTS), 1) == whole
    run("i", 4)
    for parts in (PARTS, "hi", "i"):
        kept = run("".join(parts), 5, cut_short="i")
        assert "In a run of its own. Date day 4." in kept.split("**i. ")[1], "what was measured to its end stays"
    assert run("".join(PARTS), 1) == whole


def test_a_part_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """Nobody waits ten minutes to find a typing error."""
    environment = {**os.environ, "BENCH": "a,z", "BENCH_RESULTS": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "bench"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "BENCH=z" in done.stderr
