"""The examples as users copy them: in a project of their own, with a real server and real labs."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROOT, Server, running

EXAMPLES = ROOT / "examples"
CI_VARIABLES = ("CI", "GITHUB_", "GITLAB_", "RUNNER_", "JENKINS_", "BUILD_", "JOB_")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A lab host."""
    with running(Server(tmp_path_factory.mktemp("server") / "state")) as server:
        yield server


@pytest.fixture
def environment(server: Server, tmp_path: Path) -> dict[str, str]:
    """What a user's shell knows: where the lab host is, and the commands that pip installed."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("REMOTE_LAB_", "PYTEST_", *CI_VARIABLES)) or name == "PYTEST_ADDOPTS"
    }
    home = tmp_path / "home"
    home.mkdir()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return clean | {"REMOTE_LAB_URL": server.url, "PATH": path, "HOME": str(home)}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project like examples/suite."""
    return Path(shutil.copytree(EXAMPLES / "suite", tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__")))
