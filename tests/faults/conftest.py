"""Real servers to break, with real labs or the stand-in for netlab."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness import STANDIN, Server, running

from remote_lab.netlab.pod_site import missing_requirements


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start a server with settings, in the folder `state` or another; it and its labs are gone after the test."""
    with ExitStack() as stack:

        def start(name: str = "state", **settings: object) -> Server:
            server = Server(tmp_path / name, **{"REAPER_SECONDS": 0.2, **settings})
            return stack.enter_context(running(server))

        yield start


@pytest.fixture
def standin(serve: Callable[..., Server]) -> Server:
    """A server whose labs are processes that do as they are told."""
    return serve(PROVIDER="clab", NETLAB=STANDIN, TEARDOWN_SECONDS=2)


@pytest.fixture
def pods() -> None:
    """For tests whose labs are real."""
    if reasons := missing_requirements():
        pytest.skip(f"real labs cannot run here: {'; '.join(reasons)}")
