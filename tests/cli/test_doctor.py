"""`remote-lab doctor`: what was found is up to `tests/unit/netlab`, what is made of it is shown here."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import CALL_SECONDS, Server

from .conftest import Operator

NOBODY = 65534
AS_NOBODY = """
import os, sys
import alembic.command, gunicorn.app.base, sqlite3, remote_lab.app, remote_lab.core.overview, remote_lab.server
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(int(sys.argv[1]))
    os.setuid(int(sys.argv[1]))
from remote_lab.cli import commands
commands(sys.argv[2:], prog_name="remote-lab")
"""
"""Everything is imported before root is given up, because its interpreter may lie where others cannot read."""


def find(data: dict[str, Any], name: str) -> dict[str, Any]:
    """One of the findings."""
    return next(one for one in data["findings"] if one["name"] == name)


def test_a_running_server_is_no_problem(server: Server, operator: Operator) -> None:
    """Its address is taken by itself; its state is as it should be."""
    done = operator.run("doctor", "--port", server.port, "--json", status=1)  # the stand-in's containers are none
    assert f"runs on http://127.0.0.1:{server.port}" in done.stdout
    data = operator.data("doctor", status=1)
    for name in ("settings", "state", "database", "server"):
        assert find(data, name)["ok"], data


def test_what_keeps_the_server_from_starting_is_found(make_server: Callable[..., Server], tmp_path: Path) -> None:
    """A taken port, a setting that cannot be used, a database that is none, each with what to do."""
    server = make_server()
    operator = Operator(server, tmp_path)
    server.state_dir.mkdir()
    (server.state_dir / "remote-lab.sqlite3").write_bytes(b"no database" * 1000)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = operator.says("doctor", "--port", port, status=1, REMOTE_LAB_SLOTS="many")
    failed = [line for line in text.splitlines() if line.startswith("FAIL")]
    for part in ("setting REMOTE_LAB_SLOTS", "no SQLite database", "Address already in use"):
        assert any(part in line for line in failed), text
    assert "-> Set it to a whole number from 1 to 64" in text
    assert "Labs cannot run here" in text


def test_a_user_without_subordinate_ids_is_told_what_to_do(make_server: Callable[..., Server], tmp_path: Path) -> None:
    """And so is one who may not read the server's state, without a traceback."""
    secret = tmp_path / "secret"
    secret.mkdir(mode=0)
    for server in (make_server(PROVIDER="auto"), make_server(PROVIDER="netns", STATE_DIR=secret / "state")):
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, str(NOBODY), "doctor"],
            env={**server.environment, "HOME": str(tmp_path)},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=CALL_SECONDS,
            check=False,
        )
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        ids = [line for line in done.stdout.splitlines() if line.startswith("FAIL  subordinate ids ")]
        assert len(ids) == 1
        assert "-> sudo usermod --add-subuids" in done.stdout


@pytest.mark.lab
def test_a_host_that_runs_labs_is_said_to(make_server: Callable[..., Server], tmp_path: Path) -> None:
    """Exit status 0, and the provider that labs run with."""
    operator = Operator(make_server(PROVIDER="auto"), tmp_path)
    text = operator.says("doctor", "--port", operator.server.port)
    assert "Labs can run here, with the provider netns." in text
    assert operator.data("doctor", "--port", operator.server.port)["providers"] == ["netns"]
    assert not operator.server.state_dir.exists()
