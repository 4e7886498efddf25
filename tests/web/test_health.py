"""Health, as it is."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from harness import STANDIN, Server, wait_until

from remote_lab import __version__
from remote_lab.app import create_app
from remote_lab.config import Config
from remote_lab.core import reaper, workspace


def test_healthz_is_204_and_empty(server: Server) -> None:
    """For load balancers."""
    response = server.call("GET", "/healthz")
    assert (response.status_code, response.content) == (204, b"")


def test_debug_health_counts_sessions(server: Server, session_id: str, waiting_id: str) -> None:
    """With the fields that existing dashboards read."""
    answer = server.call("GET", "/debug/health").json()
    assert (answer["status"], answer["problem"]) == ("ok", None)
    assert (answer["sessions"], answer["queue_length"]) == (2, 2)
    assert abs(answer["timestamp"] - time.time()) < 60
    assert answer["uptime"] > 0


def test_debug_health_says_what_runs(server: Server, session_id: str) -> None:
    """Slots, labs, the age of the reaper's last round, the version."""
    assert server.acquire(session_id, "nodes: [ r1 ]\n", name="well.yml").status_code == 200
    answer = server.call("GET", "/debug/health").json()
    assert (answer["slots"], answer["version"], answer["provider"]) == (1, __version__, "clab")
    assert answer["labs"] == [{"slot": 1, "topology": "well.yml", "state": "running"}]
    assert 0 <= answer["reaper_age_seconds"] < 60


def test_a_database_that_does_not_answer_is_503(server: Server) -> None:
    """The reason is in the log, and is no secret of the server that callers hear."""
    with closing(sqlite3.connect(server.state_dir / "remote-lab.sqlite3")) as database, database:
        database.execute("ALTER TABLE alembic_version RENAME TO hidden")
    try:
        for path in ("/healthz", "/debug/health"):
            response = server.call("GET", path, headers={"X-Request-ID": "sick"})
            if path == "/healthz":
                assert (response.status_code, response.json()["code"]) == (503, "server_unhealthy")
                assert "database does not answer" in response.json()["detail"]
                assert "alembic_version" not in response.text
            else:
                assert (response.status_code, response.json()["status"]) == (200, "unhealthy")
        wait_until(lambda: "rid=sick | GET /healthz: 503" in server.log.read_text(), "the request is in the log")
        [line] = [line for line in server.log.read_text().splitlines() if "rid=sick | GET /healthz" in line]
        assert ("| ERROR |" in line, "no such table: alembic_version" in line) == (True, True)
    finally:
        with closing(sqlite3.connect(server.state_dir / "remote-lab.sqlite3")) as database, database:
            database.execute("ALTER TABLE hidden RENAME TO alembic_version")
    assert server.call("GET", "/healthz").status_code == 204


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    """An application whose reaper makes no round before it is told to."""
    app = create_app(Config(state_dir=tmp_path / "state", provider="clab", netlab=str(STANDIN)))
    app.extensions["remote_lab"].database.upgrade()
    yield app
    app.extensions["remote_lab"].database.dispose()


def check(app: Flask) -> tuple[int, str]:
    """Status and detail of /healthz; /debug/health says the same."""
    client = app.test_client()
    response = client.get("/healthz")
    said = (response.get_json() or {}).get("detail", "") if response.status_code != 204 else ""
    assert (client.get("/debug/health").get_json()["problem"] or "") == said
    return response.status_code, said


def test_without_a_reaper_the_server_is_unhealthy(app: Flask) -> None:
    """Nobody would ever be promoted."""
    status, said = check(app)
    assert (status, "The reaper does not run" in said) == (503, True)


def test_a_reaper_that_hangs_is_unhealthy(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a minute, or ten intervals when they are longer."""
    loop: Any = app.extensions["remote_lab_reaper"]
    hangs = threading.Event()
    monkeypatch.setattr(loop, "tick", lambda: hangs.wait(60) or 1.0)
    loop.start()
    try:
        assert check(app) == (204, "")
        now = loop._finished
        monkeypatch.setattr(reaper, "time", SimpleNamespace(monotonic=lambda: now + 59))
        assert check(app) == (204, "")
        monkeypatch.setattr(reaper, "time", SimpleNamespace(monotonic=lambda: now + 61))
        status, said = check(app)
        assert (status, "has not finished a round for 61 s" in said) == (503, True)
        monkeypatch.setattr(loop._manager, "config", Config(reaper_seconds=10.0))
        loop.check()
    finally:
        loop._stop.set()
        hangs.set()
        loop.stop()


@pytest.mark.parametrize(
    ("disk", "what"),
    [
        (SimpleNamespace(f_flag=1, f_bavail=10**9, f_frsize=4096), "is read-only"),
        (SimpleNamespace(f_flag=0, f_bavail=100, f_frsize=4096), "has less than 16 MiB left"),
    ],
)
def test_a_disk_that_takes_nothing_is_unhealthy(
    app: Flask, monkeypatch: pytest.MonkeyPatch, disk: SimpleNamespace, what: str
) -> None:
    """Before the first session finds out."""
    monkeypatch.setattr(workspace.os, "statvfs", lambda _folder: disk)
    status, said = check(app)
    assert (status, what in said) == (503, True)
