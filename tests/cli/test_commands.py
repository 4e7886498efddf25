"""What all commands have in common."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import CALL_SECONDS, ROOT, Server

from .conftest import Operator

COMMANDS = (
    "serve",
    "status",
    "token create",
    "token list",
    "token revoke",
    "session list",
    "session show",
    "session end",
    "session extend",
    "history",
    "lab show",
    "lab log",
    "lab destroy",
    "lab netlab",
    "topology check",
    "doctor",
    "config",
    "db upgrade",
    "db backup",
    "image build",
    "image list",
    "image rm",
    "run",
    "release",
)


@pytest.fixture
def operator(make_server: Callable[..., Server], tmp_path: Path) -> Operator:
    """An operator without a server."""
    return Operator(make_server(), tmp_path)


def test_every_command_is_documented(operator: Operator) -> None:
    """In docs/cli.rst and in its own help, and nothing else is."""
    text = (ROOT / "docs" / "cli.rst").read_text()
    for command in COMMANDS:
        assert f"``{command}" in text
        assert operator.says(*command.split(), "--help").startswith("Usage: remote-lab ")
    overview = operator.says("--help")
    assert "Exit status: 0 done" in overview
    assert {command.split()[0] for command in COMMANDS} == {
        line.split()[0] for line in overview.split("Commands:")[1].split("\n\n")[0].splitlines() if line.strip()
    }


def test_options_without_a_command_are_those_of_serve(operator: Operator) -> None:
    """As `remote_lab --host ADDRESS --port PORT` always was."""
    assert "Invalid value for '--port'" in operator.complains("--host", "127.0.0.1", "--port", "0", status=2)


def test_flask_has_the_same_commands(operator: Operator) -> None:
    """With the same sentences and exit statuses."""
    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", str(ROOT / "wsgi.py"), "session", "list"],
        env=operator.server.environment,
        cwd=operator.folder,
        capture_output=True,
        text=True,
        timeout=CALL_SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: Nothing is on record: ")


def test_images_are_listed_for_people_and_programs(operator: Operator) -> None:
    """None is built in an empty folder, and that says what to do."""
    empty = {"REMOTE_LAB_IMAGE_DIR": str(operator.folder / "images")}
    assert "remote-lab image build" in operator.says("image", "list", **empty)
    assert operator.run("image", "list", "--json", **empty).stdout == "[]\n"
    assert "Traceback" not in operator.complains("image", "rm", "nothing", **empty)
