"""The pytest plugin: offers `remote_lab_client`, keeps tests of one lab together, refuses tests that want two labs.

It is loaded into every pytest run of everybody who has the distribution installed: it must import nothing that pytest
has not imported already, and say nothing when no lab fixture is in sight.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NoReturn

import pytest

from remote_lab.testing.fixture import is_lab_fixture, remote_lab_client

__all__ = ["remote_lab_client"]

LabFixture = tuple[str, Callable[..., Any]]
"""A lab fixture that a test uses: the name the test knows it by, and its function, which is the same under any name."""


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Put a collection error in the place of each test that wants two labs."""
    report = yield
    report.result = [_checked(node) for node in report.result]
    return report


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the tests of a lab behind the first of them; nothing else changes its place."""
    first_position: dict[Callable[..., Any], int] = {}
    positions: dict[pytest.Item, int] = {}
    for position, item in enumerate(items):
        positions[item] = position
        for _, lab in _lab_fixtures(item):
            positions[item] = first_position.setdefault(lab, position)
    if first_position:
        items.sort(key=positions.__getitem__)


class TwoLabsWanted(pytest.Collector):
    """Stands for a test that asks for two lab fixtures; to collect it is an error with a sentence."""

    def __init__(self, *, fixture_names: list[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._fixture_names = fixture_names

    def collect(self) -> NoReturn:
        """Raise the usage error that pytest shows for this test."""
        names = " and ".join(map(repr, self._fixture_names))
        raise self.CollectError(
            f"usage error: {self.nodeid} asks for the lab fixtures {names}, but there is one lab at a time. "
            "Ask for one of them, or make two tests of it."
        )


def _checked(node: pytest.Item | pytest.Collector) -> pytest.Item | pytest.Collector:
    if not isinstance(node, pytest.Item):
        return node
    fixture_names = [name for name, _ in _lab_fixtures(node)]
    if len(fixture_names) < 2 or node.parent is None:
        return node
    return TwoLabsWanted.from_parent(node.parent, name=node.name, fixture_names=fixture_names)


def _lab_fixtures(item: pytest.Item) -> list[LabFixture]:
    """Return the lab fixtures that a test uses, directly or through other fixtures."""
    # Private, but the same from pytest 8.3 to 9.2; there is no public way to a test's fixture definitions.
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
