"""A server that runs on this host is used, if it is one and well."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from harness import CALL_SECONDS, STANDIN, Server, running, wait_until

from remote_lab.errors import SettingInvalid
from remote_lab.local import joining

from .conftest import TOPOLOGY, Home

HEALTHY = {"status": "ok", "problem": None, "slots": 1, "labs": [], "version": "0.1.0", "provider": "netns"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running(Server(tmp_path / "state", PROVIDER="clab", NETLAB=STANDIN, REAPER_SECONDS=0.2)) as server:
        yield server


@pytest.fixture
def alone(home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Nothing of this machine is looked at but what the home of the test names."""
    monkeypatch.setattr(joining, "SYSTEM_STATE_DIRS", ())
    monkeypatch.setattr(joining, "DEFAULT_URLS", ())
    del home.environment["REMOTE_LAB_JOIN"]
    return home


class Somebody:
    """Answers every request in the same way."""

    def __init__(self, status: int, body: object) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode() if isinstance(body, str) else json.dumps(body).encode())

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the standard library
                pass

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


def test_a_server_of_this_host_is_joined_and_goes_on(home: Home, server: Server) -> None:
    """Only the run's session ends with the run, also when that is killed, and its lab with it."""
    del home.environment["REMOTE_LAB_JOIN"]
    home.environment["REMOTE_LAB_STATE_DIR"] = str(server.state_dir)
    user = home.start(topology=TOPOLOGY)
    has = home.obtained(user)
    assert (has["url"], has["joined"], has["provider"]) == (server.url, True, "clab")
    assert server.status(has["session_id"]) == ("active", 0)
    user.send_signal(signal.SIGKILL)
    wait_until(lambda: server.call("GET", f"/session/{has['session_id']}").status_code == 404, "the session has ended")
    home.wait_until_gone()
    assert server.call("GET", "/healthz").status_code == 204


def test_a_joined_server_survives_a_stop(home: Home, server: Server) -> None:
    """What goes is the guard."""
    del home.environment["REMOTE_LAB_JOIN"]
    home.environment["REMOTE_LAB_STATE_DIR"] = str(server.state_dir)
    joined = home.obtain()
    assert joined.joined
    joined.stop()
    home.wait_until_gone()
    assert server.call("GET", "/healthz").status_code == 204


def test_a_session_of_a_killed_guard_is_ended_by_the_next_run(home: Home, server: Server) -> None:
    """Also on a server that was joined."""
    del home.environment["REMOTE_LAB_JOIN"]
    home.environment["REMOTE_LAB_STATE_DIR"] = str(server.state_dir)
    user = home.start("killed", topology=TOPOLOGY)
    has = home.obtained(user)
    for pid in (home.guard_pid("killed"), user.pid):
        os.kill(pid, signal.SIGKILL)
    user.wait(CALL_SECONDS)
    wait_until(lambda: not home.processes(), "the guard has ended")
    home.obtain("next").stop()
    assert server.call("GET", f"/session/{has['session_id']}").status_code == 404
    home.wait_until_gone("killed")


def test_what_a_killed_server_left_is_no_server(alone: Home, server: Server) -> None:
    """Its file says that it is there, its lock that it is not."""
    alone.environment["REMOTE_LAB_STATE_DIR"] = str(server.state_dir)
    assert joining.find_running(alone.environment, print) == joining.Running(server.url, "clab")
    server.kill()
    assert (server.state_dir / "server.json").exists()
    said: list[str] = []
    assert joining.find_running(alone.environment, said.append) is None
    assert said == []


@pytest.mark.parametrize(
    ("status", "body", "found", "words"),
    [
        (200, HEALTHY, True, ""),
        (200, {**HEALTHY, "status": "unhealthy", "problem": "its disk is full"}, False, "not well: its disk is full"),
        (404, "<html>", False, ""),
        (200, {"status": "ok"}, False, ""),
        (200, ["x"], False, ""),
    ],
)
def test_the_default_address_is_looked_at(
    alone: Home, monkeypatch: pytest.MonkeyPatch, status: int, body: object, found: bool, words: str
) -> None:
    """Ours and well is used; one that is not well is told of; anything else is nothing to talk about."""
    somebody = Somebody(status, body)
    monkeypatch.setattr(joining, "DEFAULT_URLS", (somebody.url,))
    said: list[str] = []
    expected = joining.Running(somebody.url, "netns") if found else None
    assert joining.find_running(alone.environment, said.append) == expected
    assert len(said) == bool(words)
    assert words in "".join(said)
    somebody.http.shutdown()
    somebody.http.server_close()


def test_joining_can_be_switched_off(alone: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """REMOTE_LAB_JOIN=0 means a server for the run alone; what is neither yes nor no is refused."""
    somebody = Somebody(200, HEALTHY)
    monkeypatch.setattr(joining, "DEFAULT_URLS", (somebody.url,))
    assert joining.find_running({**alone.environment, "REMOTE_LAB_JOIN": "1"}, print) is not None
    assert joining.find_running({**alone.environment, "REMOTE_LAB_JOIN": "0"}, print) is None
    with pytest.raises(SettingInvalid, match="REMOTE_LAB_JOIN='maybe'"):
        joining.find_running({**alone.environment, "REMOTE_LAB_JOIN": "maybe"}, print)
    somebody.http.shutdown()
    somebody.http.server_close()


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        (":::8000", "http://[::1]:8000"),
        ("[::]:8000", "http://[::1]:8000"),
        ("lab.example:8000", "http://lab.example:8000"),
    ],
)
def test_a_server_is_reached_where_it_listens(address: str, url: str) -> None:
    """Anywhere is here."""
    assert joining.url_of(address) == url
