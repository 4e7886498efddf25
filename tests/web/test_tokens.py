"""Tokens over HTTP: who is let in, how a token is given, what becomes of wrong ones, and where none is ever seen."""

from __future__ import annotations

import re
import socket
from base64 import b64encode
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from doors import Door, wrong_token
from harness import running, wait_until

from remote_lab.callers import ADMIN, TRUSTED
from remote_lab.web.openapi import ERRORS

ANY_ID = "24f01c2d-8f4e-4a5b-9c3d-1e2f3a4b5c6d"
UPLOAD_BYTES = 10 * 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A server that asks for tokens because one was made."""
    with running(Door(tmp_path_factory.mktemp("server") / "state", REAPER_SECONDS=0.2)) as server:
        yield server


def basic(user: str, password: str) -> dict[str, str]:
    """Credentials as a URL with user info gives them."""
    return {"Authorization": f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"}


CALLS = [
    *((method.upper(), path.replace("{session_id}", ANY_ID)) for method, path in ERRORS if path != "/healthz"),
    *(("GET", path) for path in ("/openapi.json", "/docs", "/docs/start.js", "/nowhere", "/lab/")),
    ("PUT", "/session"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_without_a_token_nothing_is_told(server: Door, method: str, path: str) -> None:
    """Not even which paths there are; and browsers and programs are told how to give one."""
    response = server.call(method, path, ANY_ID, token="")
    assert (response.status_code, response.json()["code"]) == (401, "token_required")
    assert re.search(r"\bBearer\b.*\bBasic\b", response.headers["WWW-Authenticate"])


def test_monitoring_needs_no_token(server: Door) -> None:
    """Whether the server is well is everybody's to know, and that is all it says."""
    response = server.call("GET", "/healthz", token="")
    assert (response.status_code, response.content) == (204, b"")


def test_a_token_may_be_given_in_every_way_that_clients_have(server: Door) -> None:
    """As Bearer, as the password of any user, as a user without password; names of schemes in any case."""
    token = server.make("every-way")
    ways = [
        {"Authorization": f"Bearer {token}"},
        {"Authorization": f"bearer  {token}"},
        basic("ci", token),
        basic("", token),
        basic(token, ""),
    ]
    assert [server.call("GET", "/queue", token="", headers=way).status_code for way in ways] == [200] * len(ways)


@pytest.mark.parametrize(
    "header",
    ["Bearer nobody", "Basic nobody", "Basic bm9ib2R5", "Digest username=x", "Bearer \xe9", "Basic /w=="],
)
def test_what_is_no_token_is_401_and_why(server: Door, header: str) -> None:
    """In the shape of all errors, whatever was sent."""
    headers = {"Authorization": header.encode("latin-1"), "X-Forwarded-For": "10.0.0.1"}
    response = server.call("GET", "/queue", token="", headers=headers)
    assert (response.status_code, response.json()["code"]) == (401, "token_invalid")


def test_a_token_that_is_over_says_so_to_who_has_it(server: Door) -> None:
    """At once, beside a running server: revoked, or expired."""
    revoked, expired = server.make("leaver"), server.make("old", expires_in=timedelta(seconds=-1))
    assert server.call("GET", "/queue", token=revoked).status_code == 200
    server.revoke("leaver")
    for token, why in ((revoked, "'leaver' was revoked at"), (expired, "'old' expired at")):
        answer = server.call("GET", "/queue", token=token, headers={"X-Forwarded-For": "10.0.0.2"})
        assert (answer.status_code, answer.json()["code"]) == (401, "token_invalid")
        assert why in answer.json()["detail"]


def test_rights(server: Door) -> None:
    """Who may look after others may not thereby take labs; who is trusted may."""
    warden, trusted = server.make("warden", ADMIN), server.make("builder", TRUSTED)
    refused = server.call("POST", "/session", token=warden)
    assert (refused.status_code, refused.json()["code"]) == (403, "right_missing")
    assert "'use'" in refused.json()["detail"]
    session_id = server.open_for(trusted)
    assert server.acquire(session_id, "nodes: [ r1 ]\n").status_code == 200, "the test's own token may use"
    files = {"topology": ("demo.yml", "nodes: [ r1 ]\n")}
    assert server.call("POST", "/lab", session_id, token=warden, files=files).json()["code"] == "right_missing"
    assert server.call("GET", "/lab", session_id, token=warden).json()["running"] is True
    assert server.call("DELETE", f"/session/{session_id}", token=warden).status_code == 204


def test_wrong_tokens_are_slowed_down_for_where_they_come_from(server: Door) -> None:
    """Others go on, and so does a good token from the same address, which many clients may share."""

    def knock(address: str, token: str) -> int:
        response = server.call("GET", "/queue", token=token, headers={"X-Forwarded-For": address})
        assert response.status_code != 429 or 1 <= int(response.headers["Retry-After"]) <= 60
        return response.status_code

    statuses = [knock("192.0.2.7", wrong_token(number)) for number in range(14)]
    assert statuses == [401] * 10 + [429] * 4
    assert knock("192.0.2.8", wrong_token()) == 401
    assert knock("192.0.2.7", server.token) == 200
    # A client chooses what stands before the address that the proxy adds.
    assert knock("192.0.2.99, 192.0.2.7", wrong_token()) == 429
    assert [knock(f"2001:db8::{number:x}", wrong_token()) for number in range(11)][-1] == 429
    wait_until(lambda: "Too many wrong tokens from 192.0.2.7" in server.log.read_text(), "the log says so")


def raw(server: Door, *head: str) -> socket.socket:
    """A connection on which the head of an upload was sent, without a token."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    lines = (
        "POST /lab HTTP/1.1",
        "Host: lab",
        f"X-Session-ID: {ANY_ID}",
        "Content-Type: multipart/form-data; boundary=b",
    )
    connection.sendall("\r\n".join((*lines, *head, "\r\n")).encode())
    return connection


def test_an_upload_without_a_token_is_refused_before_its_body_is_asked_for(server: Door) -> None:
    """Who waits to be asked, as curl does, sends nothing of it."""
    with raw(server, f"Content-Length: {UPLOAD_BYTES}", "Expect: 100-continue") as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_an_upload_with_a_token_is_asked_for(server: Door) -> None:
    """Once somebody reads it."""
    session_id = server.open_for(server.token)
    body = b'--b\r\nContent-Disposition: form-data; name="reuse"\r\n\r\nperhaps\r\n--b--\r\n'
    head = (
        f"POST /lab HTTP/1.1\r\nHost: lab\r\nX-Session-ID: {session_id}\r\nAuthorization: Bearer {server.token}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head.encode())
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(65536).startswith(b"HTTP/1.1 422 ")
    server.end_session(session_id)


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_refusal_is_heard_by_who_sends_all_the_same(server: Door, is_chunked: bool) -> None:
    """A client that listens when it has sent everything gets its 401, and nothing of the upload is kept."""
    head = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {UPLOAD_BYTES}"
    with raw(server, head) as connection:
        piece = b"%x\r\n%b\r\n" % (65536, b"x" * 65536) if is_chunked else b"x" * 65536
        for _ in range(UPLOAD_BYTES // 65536):
            connection.sendall(piece)
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")
    assert [path for path in (server.state_dir / "labs").glob("*") if path.stat().st_size > UPLOAD_BYTES] == []


def test_the_last_use_is_on_record_and_costs_no_write_for_each_call(server: Door) -> None:
    """Calls of the same minute leave the record as it is."""
    token = server.make("regular")
    assert server.record("regular").last_used_at is None
    server.call("GET", "/queue", token=token)
    wait_until(lambda: server.record("regular").last_used_at is not None, "the first use is on record")
    first = server.record("regular").last_used_at
    rounds = server.call("GET", "/debug/health").json()["uptime"]
    server.call("GET", "/queue", token=token)
    wait_until(lambda: server.call("GET", "/debug/health").json()["uptime"] > rounds + 2, "the reaper has been there")
    assert server.record("regular").last_used_at == first


def test_a_token_is_never_seen_again(server: Door) -> None:
    """Not in the database, the log, the process list, or what the server says; wherever its owner put it."""
    token = server.make("secretive", expires_in=timedelta(days=1))
    session_id = server.open_for(token)
    answers = [
        server.call("GET", "/debug/health", token=token).text,
        server.call("GET", "/queue", token=token).text,
        server.call("GET", f"/queue?token={token}", token=token).text,
        server.call("GET", "/nowhere", token=f"{token}0").text,
        server.call("DELETE", f"/session/{session_id}", token=token).text,
    ]
    server.call("GET", f"/nowhere/{token}", token=token, headers={"X-Request-ID": f"id-{token}"})
    wait_until(lambda: "GET /nowhere/rlab_..." in server.log.read_text(), "the request is in the log")
    secret = token.removeprefix("rlab_").encode()
    kept = [path.read_bytes() for path in (*server.state_dir.glob("*.sqlite3*"), server.log)]
    processes = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert [text for text in (*kept, *processes, *(answer.encode() for answer in answers)) if secret in text] == []
