"""Which tests need a lab, in which order they run, and that none of them wants two. Nothing is run or asked here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from remote_lab.testing.fixture import is_lab_fixture, lab_of, topology_of

LabFixture = tuple[str, Callable[..., Any]]
"""A lab fixture that a test uses: the name the test knows it by, and its function, which is the same under any name."""


def without_two_labs(nodes: Sequence[pytest.Item | pytest.Collector]) -> list[pytest.Item | pytest.Collector]:
    """Return the nodes with a collection error in the place of each test that asks for two lab fixtures."""
    return [_checked(node) for node in nodes]


def in_lab_order(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Return the tests with those of a lab behind the first of them; nothing else changes its place.

    Tests of one fixture follow each other, and so do fixtures that can share a running lab.
    """
    first_positions: dict[object, int] = {}
    places: list[tuple[int, int, int]] = []
    for position, item in enumerate(items):
        place = (position, position, position)
        for _, function in _lab_fixtures(item):
            of_lab = first_positions.setdefault(("lab", lab_of(function)), position)
            place = (of_lab, first_positions.setdefault(("fixture", function), position), position)
        places.append(place)
    return [items[position] for *_, position in sorted(places)]


def is_lab_test(item: pytest.Item) -> bool:
    """Tell whether a test uses a lab fixture or the client, as far as that can be known before it runs."""
    return "remote_lab_client" in getattr(item, "fixturenames", ())


def first_topology(items: Sequence[pytest.Item]) -> Path | None:
    """Return the topology of the first of the tests, in their order, that uses a lab fixture."""
    return next((topology_of(function) for item in items for _, function in _lab_fixtures(item)), None)


def _checked(node: pytest.Item | pytest.Collector) -> pytest.Item | pytest.Collector:
    if not isinstance(node, pytest.Item):
        return node
    fixture_names = [name for name, _ in _lab_fixtures(node)]
    if len(fixture_names) < 2 or node.parent is None:
        return node
    # Imported here: a class that pytest collects by is dear, and hardly any run has such a test.
    from remote_lab.testing.two_labs import TwoLabsWanted

    return TwoLabsWanted.from_parent(node.parent, name=node.name, fixture_names=fixture_names)


def _lab_fixtures(item: pytest.Item) -> list[LabFixture]:
    """Return the lab fixtures that a test uses, directly or through other fixtures."""
    # Private, but the same from pytest 7.0 to 9.2; there is no public way to a test's fixture definitions.
    info = getattr(item, "_fixtureinfo", None)
    if info is None:
        return []
    return [
        (name, definition.func)
        for name in info.names_closure
        for definition in _definitions_in_use(name, info.name2fixturedefs.get(name, ()))
        if is_lab_fixture(definition.func)
    ]


def _definitions_in_use(name: str, definitions: Sequence[pytest.FixtureDef[Any]]) -> Iterator[pytest.FixtureDef[Any]]:
    """Yield the definition that counts and, while each asks for its own name, the one that it overrides."""
    for definition in reversed(definitions):
        yield definition
        if name not in definition.argnames:
            return
