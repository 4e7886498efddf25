"""Times as people write and read them; seconds everywhere else."""

from __future__ import annotations

import re

EXPECTED = "a time like 90s, 15m, 4h or 1d"
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)", re.ASCII)


def parse_seconds(text: str) -> float:
    """Return the seconds of `90`, `90s`, `15m`, `4h` or `1d`; ValueError for anything else."""
    found = _TIME.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no time: expected {EXPECTED}")
    return float(found[1]) * _UNITS[found[2]]


def about(seconds: float) -> str:
    """Return a time that need not be exact: `12 s`, `4 min`, `2.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def exactly(seconds: float) -> str:
    """Return a time to the second: `15 min`, `1 min 30 s`, `2 h`."""
    whole = max(round(seconds), 0)
    parts = ((whole // 3600, "h"), (whole // 60 % 60, "min"), (whole % 60, "s"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"


def compact(seconds: float) -> str:
    """Return a time for a cell of a table, two units at most: `3m12s`, `2h05m`."""
    whole = max(0, int(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days:
        return f"{days}d{hours % 24:02}h"
    if hours:
        return f"{hours}h{minutes % 60:02}m"
    if minutes:
        return f"{minutes}m{whole % 60:02}s"
    return f"{whole}s"
