"""Puts what a run found into docs/benchmarks.rst: the tables of its parts, and a line of its history."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from bench import ROOT
from bench.options import PARTS
from bench.report import BEFORE, OURS, Report
from bench.stats import median, short

PAGE = ROOT / "docs" / "benchmarks.rst"
_TABLE = (".. The table of the last run begins, written by make bench BENCH_PLOTS=1.\n", ".. It ends.\n")
_HISTORY_END = "\n.. The history ends.\n"


def update(report: Report, page: Path = PAGE) -> None:
    """Replace the tables, and add a line to the history when all of its numbers were measured.

    A run of some parts replaces the tables of these alone, and one that was cut short none.

    Raises ValueError when the page has lost the comments that say where.
    """
    text = page.read_text()
    before, begin, rest = text.partition(_TABLE[0])
    tables, end, after = rest.partition(_TABLE[1])
    if not begin or not end or _HISTORY_END not in after:
        raise ValueError(f"{page} has no comments that say where the table and the history are")
    lines = [line for column in (BEFORE, OURS) if (line := history_line(report, column))]
    after = after.replace(_HISTORY_END, "".join(f"{line}\n" for line in lines) + _HISTORY_END)
    kept = {part: section for part, section in sections_of(tables).items() if part in report.cut_short}
    is_whole = report.sections().keys() == PARTS.keys()
    now = report.as_rst() if is_whole else with_sections(tables, report.sections_of_their_own())
    now = with_sections(now, kept)
    page.write_text(f"{before}{begin}\n{now.strip()}\n\n{end}{after}")


def sections_of(tables: str) -> dict[str, str]:
    """The table of each part, with its title; what stands before the first of them has the key ""."""
    head, *sections = re.split(r"^(?=\*\*[a-z]\. )", tables, flags=re.MULTILINE)
    return {"": head} | {section[2]: section for section in sections}


def with_sections(tables: str, new: Mapping[str, str]) -> str:
    """The tables of a page with those of some parts replaced, or added in their order."""
    known = sections_of(tables) | dict(new)
    return known.pop("") + "".join(f"{known[part].strip()}\n\n" for part in sorted(known))


def history_line(report: Report, column: str) -> str:
    """One row of the list table: date, version and the medians of a column in the rows with a key, ordered as `KEYS`.

    Empty unless all of ours were measured: a part of a run is no history.
    """
    found = {row.key: row.values for row in report.rows if row.key}
    if any(not found.get(key, {}).get(OURS) for key in KEYS) or not any(column in values for values in found.values()):
        return ""
    numbers = [short(median(values)) if (values := found[key].get(column)) else "-" for key in KEYS]
    version = report.about["version"] if column == OURS else f"{report.about['version']}, {column}"
    cells = [report.about["date"][:10], version, *numbers]
    return "\n".join(f"   {'*' if not index else ' '} - {cell}" for index, cell in enumerate(cells))


KEYS = {
    "polls": "polls/s",
    "heartbeats": "heartbeats/s",
    "promotion": "promotion, ms",
    "ten": "ten clients, s",
    "crowd": "p99 beside 5000, ms",
    "acquire": "acquire, 100 nodes, ms",
    "attach": "warm attach, ms",
    "boot 8": "8 routers, s",
    "boot 32": "32 routers, s",
    "overlap": "ten jobs with overlap, s",
    "idle": "idle, MiB",
}
"""Of the rows in the history, with the heads of their columns on the page."""
