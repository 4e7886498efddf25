"""How commands print: aligned tables and ages for people, JSON with ISO times for programs.

Much of what is printed comes from users: nothing of it may move the cursor or look like a column of its own.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import click

from remote_lab.durations import compact

SHOWN_OF_ID = 8
SHOWN_OF_TEXT = 48
_GAP = "  "
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def short_id(identifier: str) -> str:
    """The beginning of an id, as tables and the log have it."""
    return identifier[:SHOWN_OF_ID]


def age(begin: datetime | None, end: datetime | None = None) -> str:
    """How long ago a moment was, or how far it is from another: `45s`, `3m12s`, `2h05m`, `3d04h`."""
    if begin is None:
        return "-"
    return compact(((end or datetime.now(UTC)) - begin).total_seconds())


def remaining(moment: datetime | None) -> str:
    """How far a moment ahead is, `over` when it is behind."""
    if moment is None:
        return "-"
    seconds = (moment - datetime.now(UTC)).total_seconds()
    return compact(seconds) if seconds > 0 else "over"


def moment(value: datetime | None) -> str:
    """A moment with its age."""
    return "-" if value is None else f"{value:%Y-%m-%d %H:%M:%S} UTC ({age(value)} ago)"


def plain(value: object, limit: int | None = None) -> str:
    """A value on one line without control characters; `-` when there is none."""
    text = "-" if value is None else " ".join(str(value).split())
    text = "".join(character if character.isprintable() else "?" for character in text) or "-"
    return text if limit is None or len(text) <= limit else f"{text[: limit - 3]}..."


def harmless(text: str) -> str:
    """A log for a terminal: its lines, without what could do something to the terminal."""
    bare = _COLOURS.sub("", text)
    return "".join(character if character.isprintable() or character in "\n\t" else "?" for character in bare)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], limit: int | None = SHOWN_OF_TEXT) -> None:
    """Print columns; values longer than the limit are cut."""
    lines = [list(headers), *([plain(cell, limit) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    for line in lines:
        click.echo(_GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def details(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values below each other; nothing is cut."""
    known = [(name, plain(value)) for name, value in pairs]
    width = max(len(name) for name, _ in known)
    for name, value in known:
        click.echo(f"{name.ljust(width)}{_GAP}{value}")


def print_json(value: Any) -> None:
    """Print data classes, lists and mappings of plain values; times as ISO 8601 in UTC."""
    click.echo(json.dumps(value, indent=2, default=_jsonable))


def _jsonable(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path | Enum):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON")
