"""A real server with a stand-in for netlab: the wire is real, the labs are not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import STANDIN, Server, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests of a module; each test leaves its queue empty."""
    state_dir = tmp_path_factory.mktemp("server") / "state"
    settings = {"PROVIDER": "clab", "NETLAB": STANDIN, "MAX_UPLOAD_BYTES": 100_000, "MAX_UPLOAD_FILES": 20}
    with running(Server(state_dir, **settings)) as server:
        yield server


@pytest.fixture
def session_id(server: Server) -> Iterator[str]:
    """An active session."""
    session_id = server.open_session()
    server.wait_active(session_id)
    yield session_id
    server.end_session(session_id)


@pytest.fixture
def waiting_id(server: Server, session_id: str) -> Iterator[str]:
    """A session behind the active one."""
    waiting_id = server.open_session()
    yield waiting_id
    server.end_session(waiting_id)


def files_of(state_dir: Path) -> list[str]:
    """Everything that uploads have left."""
    return sorted(str(path.relative_to(state_dir)) for path in (state_dir / "labs").rglob("*") if path.is_file())
