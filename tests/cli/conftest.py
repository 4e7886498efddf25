"""Commands as operators run them, processes of their own, beside a real server with a stand-in for netlab."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import CALL_SECONDS, STANDIN, Server, list_labs, running

TOPOLOGY = "nodes: [ r1, r2 ]\n"


class Operator:
    """Runs `remote-lab` with the settings of a server."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.folder = folder

    def run(self, *words: object, status: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command that ends with this exit status."""
        done = subprocess.run(
            [sys.executable, "-m", "remote_lab", *map(str, words)],
            env={**self.server.environment, **environment},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CALL_SECONDS,
            check=False,
        )
        assert done.returncode == status, f"{words} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def says(self, *words: object, status: int = 0, **environment: str) -> str:
        """What it prints on standard output."""
        return self.run(*words, status=status, **environment).stdout

    def complains(self, *words: object, status: int = 1, **environment: str) -> str:
        """What it prints on standard error."""
        return self.run(*words, status=status, **environment).stderr

    def data(self, *words: object, status: int = 0) -> Any:
        """What it prints as JSON."""
        return json.loads(self.says(*words, "--json", status=status))

    def rows(self, *words: object, status: int = 0) -> list[list[str]]:
        """The lines it prints, each as its words."""
        return [line.split() for line in self.says(*words, status=status).splitlines()]


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Servers on the same state folder that are not started; all their sessions and labs are gone after the test."""
    made: list[Server] = []

    def make(**settings: object) -> Server:
        made.append(Server(tmp_path / "state", **{"PROVIDER": "clab", "NETLAB": STANDIN, **settings}))
        return made[-1]

    yield make
    for server in made:
        if server.process is not None and server.process.poll() is None:
            server.terminate()
    if made and list_labs(tmp_path / "state"):
        with running(made[-1]):
            pass


@pytest.fixture(scope="module")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"PROVIDER": "clab", "NETLAB": STANDIN, "SLOTS": 2}
    with running(Server(tmp_path_factory.mktemp("server") / "state", **settings)) as server:
        yield server


@pytest.fixture
def server(_shared: Server) -> Iterator[Server]:
    """A running server with two slots; only what ended in earlier tests of the module is on record."""
    yield _shared
    end_everything(_shared)


def end_everything(server: Server) -> None:
    """Empty the queue of a running server and wait until its labs are down."""
    while (head := server.call("GET", "/active-session")).status_code == 200:
        server.end_session(head.json()["session_id"])
    server.wait_quiet()


@pytest.fixture
def operator(server: Server, tmp_path: Path) -> Operator:
    """An operator of the running server."""
    return Operator(server, tmp_path)


@pytest.fixture
def session_id(server: Server) -> str:
    """An active session with a running lab."""
    session_id = server.open_session()
    server.wait_active(session_id)
    assert server.acquire(session_id, TOPOLOGY).status_code == 200
    return session_id
