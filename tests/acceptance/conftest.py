"""Real servers with real labs in network namespaces, seen from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness import Server, running

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def pair() -> Path:
    """Two FRR routers with OSPF, as in the README."""
    return EXAMPLES / "ospf-pair.yml"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start a server with settings; it and its labs are gone after the test."""
    with ExitStack() as stack:

        def start(**settings: object) -> Server:
            return stack.enter_context(running(Server(tmp_path / "state", **settings)))

        yield start
