"""Rows with their columns, and how they are shown: on a terminal, as JSON, as a table of reStructuredText."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.options import PARTS
from bench.stats import median, spread

OURS, BEFORE, FLOOR, PEER = "ours", "before", "floor", "peer"
COLUMNS = (OURS, BEFORE, FLOOR, PEER)
_ABSENT = "-"


@dataclass(frozen=True)
class Goal:
    """A bound for the median of `ours`, or of its ratio to the column `per`."""

    bound: float
    is_lower: bool = False
    """Whether it is the least that counts as met, not the most."""
    per: str | None = None

    def __str__(self) -> str:
        return f"{'at least' if self.is_lower else 'below'} {self.bound:g}{f' of {self.per}' if self.per else ''}"

    def is_met(self, row: Row) -> bool | None:
        """None when a column that it needs was not measured."""
        values = row.ratios(self.per) if self.per else row.values.get(OURS, ())
        if not values:
            return None
        return median(values) >= self.bound if self.is_lower else median(values) <= self.bound


@dataclass(frozen=True)
class Row:
    """One quantity, measured once in each repetition in every column."""

    part: str
    what: str
    unit: str
    values: Mapping[str, Sequence[float]]
    goals: tuple[Goal, ...] = ()
    key: str = ""
    """Its name in the history that docs/benchmarks.rst keeps, if it is in there."""

    def ratios(self, column: str) -> list[float]:
        """Ours to that column, repetition by repetition; where the numbers of these differ, to its median."""
        ours, other = self.values.get(OURS, ()), self.values.get(column, ())
        if not ours or not other or not all(other):
            return []
        if len(ours) == len(other):
            return [mine / theirs for mine, theirs in zip(ours, other, strict=True)]
        return [mine / median(other) for mine in ours]

    def verdicts(self) -> str:
        """Each goal with what became of it."""
        words = {True: "met", False: "MISSED", None: "not measured"}
        return "; ".join(f"{goal}: {words[goal.is_met(self)]}" for goal in self.goals)


@dataclass
class Report:
    """All that one run found."""

    about: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    series: dict[str, Any] = field(default_factory=dict)
    """What the plots are drawn from."""
    notes: list[str] = field(default_factory=list)
    """What was not measured, and why."""
    cut_short: set[str] = field(default_factory=set)
    """Parts that had not the time to find what they are about; docs keep the table and the picture of one that had."""

    def add(self, rows: Iterable[Row]) -> None:
        self.rows.extend(rows)

    @property
    def columns(self) -> list[str]:
        return [name for name in COLUMNS if any(row.values.get(name) for row in self.rows)]

    def missed(self) -> list[str]:
        return [row.what for row in self.rows if any(goal.is_met(row) is False for goal in row.goals)]

    def as_json(self) -> str:
        rows = [
            {
                "part": row.part,
                "what": row.what,
                "unit": row.unit,
                "values": {name: [round(value, 4) for value in values] for name, values in row.values.items()},
                "median": {name: round(median(values), 4) for name, values in row.values.items() if values},
                "ratio": {name: spread(found) for name in COLUMNS[1:] if (found := row.ratios(name))},
                "goals": row.verdicts(),
            }
            for row in self.rows
        ]
        return json.dumps({"about": self.about, "rows": rows, "series": self.series, "notes": self.notes}, indent=1)

    def _cells(self, row: Row) -> list[str]:
        shown = [spread(row.values[name]) if row.values.get(name) else _ABSENT for name in self.columns]
        others = [name for name in self.columns if name != OURS]
        ratios = [spread(found) if (found := row.ratios(name)) else _ABSENT for name in others]
        return [f"{row.what}, {row.unit}", *shown, *ratios, row.verdicts() or _ABSENT]

    def _heads(self) -> list[str]:
        return ["", *self.columns, *(f"ours/{name}" for name in self.columns if name != OURS), "goal"]

    def as_text(self) -> str:
        """A plain table, part by part."""
        table = [self._heads(), *(self._cells(row) for row in self.rows)]
        widths = [max(len(line[index]) for line in table) for index in range(len(table[0]))]

        def lay_out(cells: Sequence[str]) -> str:
            return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()

        lines = [lay_out(table[0]), lay_out(["-" * width for width in widths])]
        part = ""
        by_part = sorted(zip(self.rows, table[1:], strict=True), key=lambda pair: list(PARTS).index(pair[0].part))
        for row, cells in by_part:
            if row.part != part:
                part = row.part
                lines += ["", f"{part}  {PARTS[part]}"]
            lines.append(lay_out(cells))
        return "\n".join([*lines, "", *(f"note: {note}" for note in self.notes)])

    def as_rst(self) -> str:
        """The same as list tables, for docs/benchmarks.rst."""
        return f"{self._said()}\n\n{self._noted()}{''.join(self.sections().values())}".rstrip() + "\n"

    def sections(self) -> dict[str, str]:
        """The list table of each part that was measured, with its title."""
        found = {}
        for part, title in PARTS.items():
            rows = [row for row in self.rows if row.part == part]
            if not rows:
                continue
            lines = [f"**{part}. {title}**", "", ".. list-table::", "   :header-rows: 1", ""]
            for cells in (self._heads(), *(self._cells(row) for row in rows)):
                lines += [f"   {'*' if not index else ' '} - {cell}" for index, cell in enumerate(cells)]
            found[part] = "\n".join([*lines, "", ""])
        return found

    def sections_of_their_own(self) -> dict[str, str]:
        """The same of a run of some parts: each says by itself of which run it is, and what was not measured."""
        return {
            part: f"{section}In a run of its own. {self._said()}\n\n{self._noted()}"
            for part, section in self.sections().items()
        }

    def _said(self) -> str:
        said = ", ".join(f"{name} {value}" for name, value in self.about.items())
        return f"{said[:1].upper()}{said[1:]}."

    def _noted(self) -> str:
        return "".join(f"* {note}\n" for note in self.notes) + ("\n" if self.notes else "")
