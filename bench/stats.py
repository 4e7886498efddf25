"""Numbers about numbers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that so big a part of all is not above."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * part) - 1)]


def short(value: float) -> str:
    """Three digits that count, and thousands with a space."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}"


def spread(values: Sequence[float]) -> str:
    """Median, and smallest to largest when there are several."""
    middle = short(median(values))
    return middle if len(values) == 1 else f"{middle} ({short(min(values))} to {short(max(values))})"
