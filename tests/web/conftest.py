"""A real server with a stand-in for netlab: the wire is real, the labs are not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from harness import STANDIN, Server, running
from openapi_check import Contract

from remote_lab.app import create_app
from remote_lab.config import Config


@pytest.fixture(scope="session")
def contract() -> Contract:
    """The document that every server of this version serves."""
    app = create_app(Config(provider="clab", netlab=str(STANDIN)))
    return Contract(app.test_client().get("/openapi.json").get_json())


@pytest.fixture(autouse=True)
def every_answer_is_in_the_document(contract: Contract, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer to `Server.call` in these tests is one that the OpenAPI document describes."""
    call = Server.call

    def checked(self: Server, method: str, path: str, *arguments: Any, **more: Any) -> requests.Response:
        response = call(self, method, path, *arguments, **more)
        if not more.get("stream"):
            contract.check(method, path, response)
        return response

    monkeypatch.setattr(Server, "call", checked)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests of a module; each test leaves its queue empty."""
    state_dir = tmp_path_factory.mktemp("server") / "state"
    settings = {"PROVIDER": "clab", "NETLAB": STANDIN, "MAX_UPLOAD_BYTES": 100_000, "MAX_UPLOAD_FILES": 20}
    with running(Server(state_dir, **settings)) as server:
        yield server


@pytest.fixture(autouse=True)
def the_slot_is_free(request: pytest.FixtureRequest) -> None:
    """The lab of the test before goes down behind the end of its session."""
    if "server" in request.fixturenames:
        request.getfixturevalue("server").wait_quiet()


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
