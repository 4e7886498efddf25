"""One server for each state folder, clear refusals to start, and clients that behave badly."""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from harness import CALL_SECONDS, STANDIN, Server


def refuses_to_start(server: Server) -> str:
    """What a server that does not start says last; its exit status is 1."""
    assert server.spawn().wait(CALL_SECONDS) == 1
    return server.log.read_text().splitlines()[-1]


@pytest.fixture
def standin(serve: Callable[..., Server]) -> Server:
    return serve(PROVIDER="clab", NETLAB=STANDIN)


def test_a_second_server_says_who_is_there(standin: Server, tmp_path: Path) -> None:
    """With pid, user, host, address, version and start; the first is not disturbed."""
    second = Server(standin.state_dir, PROVIDER="clab", NETLAB=STANDIN)
    second.log = tmp_path / "second.log"
    sentence = refuses_to_start(second)
    assert standin.process is not None
    for part in (f"pid {standin.process.pid} of ", socket.gethostname(), standin.url, "version 0.", "started 20"):
        assert part in sentence
    assert standin.call("GET", "/healthz").status_code == 204


def test_a_taken_port_is_said_before_anything_is_touched(standin: Server, tmp_path: Path) -> None:
    """No database, no lab, one sentence."""
    second = Server(tmp_path / "other", PROVIDER="clab", NETLAB=STANDIN)
    second.port = standin.port
    assert f"Cannot serve on 127.0.0.1:{standin.port}: Address already in use" in refuses_to_start(second)
    assert not (second.state_dir / "remote-lab.sqlite3").exists()


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("SLOTS", "many", "REMOTE_LAB_SLOTS='many' cannot be used: expected a whole number"),
        ("DATABASE_URL", "postgresql://x/y", "REMOTE_LAB_DATABASE_URL='postgresql://x/y' cannot be used"),
        ("NETLAB", "/nowhere/netlab", "/nowhere/netlab"),
        ("STATE_DIR", "/proc/nowhere", "REMOTE_LAB_STATE_DIR='/proc/nowhere' cannot be used: expected a folder"),
    ],
)
def test_a_setting_that_cannot_work_stops_the_start(tmp_path: Path, setting: str, value: str, sentence: str) -> None:
    """With its name, its value and what is expected."""
    server = Server(tmp_path / "state", **{"PROVIDER": "clab", "NETLAB": STANDIN, setting: value})
    assert sentence in refuses_to_start(server)


def test_a_database_that_is_none_stops_the_start_and_is_left_alone(tmp_path: Path) -> None:
    """The sentence has its path and what to do."""
    server = Server(tmp_path / "state", PROVIDER="clab", NETLAB=STANDIN)
    server.state_dir.mkdir()
    database = server.state_dir / "remote-lab.sqlite3"
    database.write_bytes(b"not a database" * 1000)
    sentence = refuses_to_start(server)
    assert str(database) in sentence
    assert "restore a backup" in sentence
    assert database.read_bytes() == b"not a database" * 1000


def test_a_database_of_a_newer_version_stops_the_start(standin: Server) -> None:
    """Going back after an upgrade must not damage it."""
    standin.terminate()
    with closing(sqlite3.connect(standin.state_dir / "remote-lab.sqlite3")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'from_the_future'")
    assert "from_the_future" in refuses_to_start(standin)


def test_the_instance_is_free_after_an_orderly_end(standin: Server) -> None:
    """At once, and again."""
    for _ in range(2):
        assert standin.terminate() == 0
        assert not (standin.state_dir / "server.json").exists()
        standin.start()


def test_clients_that_never_close_stop_nobody(standin: Server) -> None:
    """gunicorn 27.0.1 waits for them on its main thread: five of them stall everybody for 10 s."""
    sockets = [socket.create_connection(("127.0.0.1", standin.port)) for _ in range(5)]
    for one in sockets:
        one.sendall(b"GET /healthz HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
        assert one.recv(1)
    assert standin.call("GET", "/healthz", timeout=4).status_code == 204
    for one in sockets:
        one.close()


def test_half_requests_stop_nobody(standin: Server) -> None:
    """More clients than threads that connect and say nothing."""
    sockets = [socket.create_connection(("127.0.0.1", standin.port)) for _ in range(60)]
    assert standin.call("GET", "/healthz", timeout=4).status_code == 204
    for one in sockets:
        one.close()


def test_state_is_for_its_owner_only(standin: Server) -> None:
    """Session ids are in there."""
    assert os.stat(standin.state_dir).st_mode & 0o077 == 0
