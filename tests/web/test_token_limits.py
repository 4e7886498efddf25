"""What each token may have at most, and that clients who are slow, silent or many stop nobody else."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import requests
from doors import Door
from harness import STANDIN, Server, running, wait_until

TOPOLOGY = "nodes: [ r1 ]\n"
MANY = 500
SOON_SECONDS = 5.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A server that gives each token very little."""
    limits = {"TOKEN_WAITING": 2, "TOKEN_BOOTS": 2, "TOKEN_UPLOAD_BYTES": 5000, "TOKEN_UPLOAD_FILES": 6}
    with running(Door(tmp_path_factory.mktemp("server") / "state", SLOTS=4, **limits)) as server:
        yield server


def check_limit(response: requests.Response, variable: str) -> None:
    """It says which limit, and when to come again."""
    assert (response.status_code, response.json()["code"]) == (429, "limit_exceeded")
    assert variable in response.json()["detail"]
    assert 1 <= int(response.headers["Retry-After"]) <= 3660


def acquire(server: Door, token: str, session_id: str, size: int = 0, files: int = 0) -> requests.Response:
    """An upload of a token, with so many bytes more and so many files beside it."""
    topology = TOPOLOGY + "#" * size
    parts = [("topology", ("demo.yml", topology)), *(("extra_files", (f"{n}.txt", "x")) for n in range(files))]
    return server.call("POST", "/lab", session_id, token=token, files=parts)


def test_places_in_the_queue(server: Door) -> None:
    """Those that are active do not count; another token still gets in, and a place given back is free."""
    eager, other = server.make("eager"), server.make("patient")
    mine = [server.open_for(eager) for _ in range(6)]
    check_limit(server.call("POST", "/session", token=eager), "REMOTE_LAB_TOKEN_WAITING")
    server.end_session(server.open_for(other))
    server.end_session(mine[-1])
    mine.append(server.open_for(eager))
    for session_id in reversed(mine):
        server.end_session(session_id)


def test_boots_in_an_hour(server: Door) -> None:
    """Sharing what runs is no boot; another session of the token has no more, another token has its own."""
    token, other = server.make("booter"), server.make("other-booter")
    session_id, second, others = (server.open_for(owner) for owner in (token, token, other))
    assert acquire(server, token, session_id).status_code == 200
    assert acquire(server, token, session_id).json()["reused"] is True
    assert acquire(server, token, second).status_code == 200
    server.call("DELETE", "/lab", second)
    wait_until(lambda: len(server.call("GET", "/debug/health").json()["labs"]) == 1, "the second lab is down")
    check_limit(acquire(server, token, second), "REMOTE_LAB_TOKEN_BOOTS")
    assert acquire(server, other, others).status_code == 200
    for one in (session_id, second, others):
        server.end_session(one)


def test_bytes_in_an_hour(server: Door) -> None:
    """Refused uploads count: it is what came over the wire."""
    token = server.make("uploader")
    session_id = server.open_for(token)
    assert acquire(server, token, session_id, size=2000).status_code == 200
    assert acquire(server, token, session_id, size=2000).status_code == 200
    check_limit(acquire(server, token, session_id, size=2000), "REMOTE_LAB_TOKEN_UPLOAD_BYTES")
    server.end_session(session_id)


def test_files_in_an_hour(server: Door) -> None:
    """The topology is one of them."""
    token = server.make("filer")
    session_id = server.open_for(token)
    assert acquire(server, token, session_id, files=3).status_code == 200
    check_limit(acquire(server, token, session_id, files=3), "REMOTE_LAB_TOKEN_UPLOAD_FILES")
    server.end_session(session_id)


def test_other_bodies_are_small(server: Door) -> None:
    """JSON is bounded far below uploads, with or without saying how long it is."""
    body = b'{"purpose": "' + b"x" * 70_000 + b'"}'
    for data in (body, iter([body])):
        headers = {"Content-Type": "application/json"}
        response = server.call("POST", "/session", data=data, headers=headers)
        assert (response.status_code, response.json()["code"]) == (413, "request_entity_too_large")


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server as it is by default."""
    with running(Server(tmp_path_factory.mktemp("open") / "state", PROVIDER="clab", NETLAB=STANDIN)) as server:
        yield server


BEGINNINGS = {
    "nothing": b"",
    "half a head": b"POST /session HTTP/1.1\r\nHost: lab\r\nX-",
    "a small body": b"POST /session HTTP/1.1\r\nHost: lab\r\nContent-Type: application/json\r\n"
    b"Content-Length: 90\r\n\r\n{",
    "a large body": b"POST /lab HTTP/1.1\r\nHost: lab\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    b"Content-Length: 9000000\r\n\r\n--b\r\nContent-Disp",
}


@pytest.mark.parametrize("beginning", BEGINNINGS.values(), ids=BEGINNINGS)
def test_many_slow_clients_stop_nobody(open_server: Server, beginning: bytes) -> None:
    """Whatever five hundred connections leave undone, others are answered meanwhile."""
    with ExitStack() as stack:
        for _ in range(MANY):
            connection = stack.enter_context(socket.socket())
            connection.connect(("127.0.0.1", open_server.port))
            connection.sendall(beginning)
        for _ in range(10):
            assert open_server.call("GET", "/healthz", timeout=SOON_SECONDS).status_code == 204
        open_server.end_session(open_server.open_session())
