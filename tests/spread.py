"""The order of tests for several workers: what takes long begins first, a share of it on each worker.

pytest-xdist's worksteal gives each worker a stretch of the collection, and moves what is left of one to others from
its end. So a worker whose stretch ends with long tests ends last, and alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

import pytest


def spread(items: Sequence[pytest.Item], workers: int) -> list[pytest.Item]:
    """All of them, module by module: those that allow themselves more time than others in front of each stretch."""
    modules = [list(of_one) for _, of_one in groupby(items, lambda item: item.path)]
    long = sorted((module for module in modules if _seconds(module)), key=_seconds, reverse=True)
    short = iter([item for module in modules if not _seconds(module) for item in module])
    ordered: list[pytest.Item] = []
    for number, size in enumerate(_stretches(len(items), workers)):
        stretch = [item for module in long[number::workers] for item in module]
        ordered += stretch + [item for _, item in zip(range(size - len(stretch)), short, strict=False)]
    return ordered + list(short)


def _seconds(module: Iterable[pytest.Item]) -> float:
    """The longest time that a test of a module may take; 0 where all have the usual one."""
    marks = (item.get_closest_marker("timeout") for item in module)
    return max((float(mark.args[0]) for mark in marks if mark is not None), default=0.0)


def _stretches(count: int, workers: int) -> Iterable[int]:
    """How many tests each worker gets at first (xdist 3.8, scheduler/worksteal.py)."""
    for number in range(workers):
        size = count // (workers - number)
        count -= size
        yield size
