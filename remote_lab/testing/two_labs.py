"""The collection error that takes the place of a test that wants two labs."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest


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
