"""Polls and heartbeats that no thread answers: the same answers as of the routes, and nobody waits behind anybody."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from doors import Door, wrong_token
from flask import Flask
from harness import STANDIN, Server, running, wait_until
from raw import ask, connect, get, receive, status_of
from sqlalchemy import event, text
from sqlalchemy.engine import Engine

from remote_lab.app import create_app
from remote_lab.config import Config
from remote_lab.core.db import Database
from remote_lab.core.liveness import Liveness
from remote_lab.core.manager import LabManager
from remote_lab.core.views import Holder, SessionView
from remote_lab.web import fast
from remote_lab.web.fast import FastAnswers, Hold, Told
from remote_lab.web.schemas import SessionStatus

UNKNOWN = "24f01c2d-8f4e-4a5b-9c3d-1e2f3a4b5c6d"
ROUTES_ONLY = "X_Ask: the routes"
"""A header that gunicorn drops, and for which the fast answers leave a request to the routes."""
THREADS = 4

HEADERS = (
    ("Connection: close",),
    ("Connection: keep-alive", "Accept: */*", "User-Agent: curl/8", "Accept-Encoding: gzip, deflate"),
    ("Connection: upgrade", "Upgrade: h2c"),
    ("Content-Length: 0",),
    ("Content-Length: 2",),
    ("Content-Length: -1",),
    ("Content-Length: 0", "Content-Length: 0"),
    ("Transfer-Encoding: chunked",),
    ("Transfer-Encoding: gzip",),
    ("Expect: 100-continue", "Content-Length: 0"),
    ("X-Request-ID: ci-4711",),
    ("X-Request-ID: not sane",),
    ("X-Request-ID:",),
    ("If-None-Match: *", "Range: bytes=0-3", "If-Modified-Since: Sat, 21 Nov 2099 06:08:09 GMT"),
    ("X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: https"),
    ("X-Forwarded-Proto: https", "X-Forwarded-Ssl: off"),
    ("Content-Type: application/json", "Origin: https://elsewhere.example.org"),
    ("X-Name: Jos\xe9",),
    ("X-Long: " + "x" * 7000,),
    ("X-Too-Long: " + "x" * 9000,),
    tuple(f"X-Header-{number}: x" for number in range(110)),
    ("X-Folded: a\r\n b",),
    ("X Bad: a",),
    ("X-Nul: a\0b",),
    ("no colon",),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server, whose queue stays as it is while answers are compared."""
    state_dir = tmp_path_factory.mktemp("server") / "state"
    with running(Server(state_dir, PROVIDER="clab", NETLAB=STANDIN, THREADS=THREADS)) as server:
        yield server


@pytest.fixture(scope="module")
def ids(server: Server) -> Iterator[dict[str, str]]:
    """Sessions of every kind."""
    ids = {name: server.open_session() for name in ("active", "waiting", "last", "ended")}
    server.end_session(ids["ended"])
    yield ids | {"unknown": UNKNOWN, "upper": ids["waiting"].upper()}
    for session_id in (ids["last"], ids["waiting"], ids["active"]):
        server.end_session(session_id)


def without_what_differs(answer: bytes) -> bytes:
    """An answer without its date, and without an id that the server made up."""
    answer = re.sub(rb"\r\nDate: [^\r]+", b"\r\nDate:", answer)
    return re.sub(rb"\r\nX-Request-ID: [0-9a-f]{16}\r\n", b"\r\nX-Request-ID:\r\n", answer)


def assert_same(server: Server, method: str, path: str, *headers: str) -> int:
    """The same request gets the same answer, with the routes asked or not; returns its status."""
    quick, slow = (
        without_what_differs(ask(server, get(path, *headers, *more, method=method))) for more in ((), (ROUTES_ONLY,))
    )
    assert quick == slow
    return status_of(quick)


@pytest.mark.parametrize("session", ["active", "waiting", "last", "ended", "unknown", "upper"])
@pytest.mark.parametrize(
    "query",
    ["", "?", "?wait=0", "?wait=0.2", "?wait=", "?wait=abc", "?wait=-1", "?wait=1&wait=1", "?x=1", "?wait=1e-2"],
)
def test_status_is_that_of_the_routes(server: Server, ids: dict[str, str], session: str, query: str) -> None:
    """Body, status and headers."""
    status = assert_same(server, "GET", f"/session/{ids[session]}{query}")
    assert status in ((200, 422) if session in ("active", "waiting", "last") else (404, 422))


@pytest.mark.parametrize("headers", HEADERS, ids=lambda headers: headers[0][:30])
def test_headers_change_nothing_that_they_do_not_change_there(
    server: Server, ids: dict[str, str], headers: tuple[str, ...]
) -> None:
    """The odd ones are left to gunicorn and the routes."""
    assert_same(server, "GET", f"/session/{ids['waiting']}", *headers)
    assert_same(server, "POST", "/session/heartbeat", f"X-Session-ID: {ids['active']}", *headers)


@pytest.mark.parametrize(
    ("method", "path", "session"),
    [
        ("POST", "/session/heartbeat", "active"),
        ("POST", "/session/heartbeat", "waiting"),
        ("POST", "/session/heartbeat", "ended"),
        ("POST", "/session/heartbeat", "unknown"),
        ("POST", "/session/heartbeat", None),
        ("POST", "/session/heartbeat?x=1", "active"),
        ("POST", "/session/heartbeat/", "active"),
        ("GET", "/session/heartbeat", "active"),
        ("HEAD", "/session/{}", "active"),
        ("OPTIONS", "/session/{}", "active"),
        ("PUT", "/session/{}", "active"),
        ("GET", "/session/{}/", "active"),
        ("GET", "//session/{}", "active"),
        ("GET", "/session/{}/extend", "active"),
        ("GET", "http://lab.example.org/session/{}", "active"),
        ("GET", "/session/%7B{}%7D", "active"),
    ],
)
def test_calls_around_are_those_of_the_routes(
    server: Server, ids: dict[str, str], method: str, path: str, session: str | None
) -> None:
    """Refusals among them."""
    named = [] if session is None else [f"X-Session-ID: {ids[session]}"]
    assert_same(server, method, path.format(ids[session or "active"]), *named, "Connection: close")


def test_one_connection_asks_again_and_again(server: Server, ids: dict[str, str]) -> None:
    """Of whom the next answer comes does not matter; two requests at once are two answers."""
    poll, other = get(f"/session/{ids['waiting']}"), get("/queue")
    with connect(server) as connection:
        for request in (poll, poll, other, poll, other, other, poll):
            connection.sendall(request)
            assert status_of(receive(connection)) == 200
        connection.sendall(poll + other + poll)
        assert [status_of(receive(connection)) for _ in range(3)] == [200] * 3
        connection.sendall(poll[:20])
        connection.sendall(poll[20:])
        assert status_of(receive(connection)) == 200
        connection.sendall(get(f"/session/{ids['waiting']}", "Connection: close"))
        assert status_of(receive(connection)) == 200
        assert connection.recv(1) == b""


def test_it_is_in_the_log_like_any_other(server: Server, ids: dict[str, str]) -> None:
    """With its session, its request id and how long it took; a held one as long as it was held."""
    path = f"/session/{ids['waiting']}"
    for number, more in enumerate(((), (ROUTES_ONLY,))):
        ask(server, get(path, f"X-Request-ID: logged-{number}", *more))
    ask(server, get(f"{path}?wait=0.2", "X-Request-ID: logged-held"))
    about = f"| DEBUG | remote-lab-server | sid={ids['waiting'][:8]} rid=logged-%s | GET {path}%s: 200 in "
    wait_until(lambda: about % ("held", "?wait=0.2") in server.log.read_text(), "the last is in the log")
    text = server.log.read_text()
    assert [about % (number, "") in text for number in (0, 1)] == [True, True]
    took = re.search(r"rid=logged-held \| .* in (\d+) ms", text)
    assert took is not None
    assert int(took[1]) >= 200


def test_whose_session_it_is_counts_here_too(tmp_path: Path) -> None:
    """A session of somebody else is one that never was, and a revoked token opens nothing."""
    with running(Door(tmp_path / "state")) as server:
        alice, bob = server.make("alice"), server.make("bob")
        session = server.open_for(alice)
        path = f"/session/{session}"
        signed = {name: f"Authorization: Bearer {token}" for name, token in (("alice", alice), ("bob", bob))}
        for authorization, status in (
            ((signed["alice"],), 200),
            (("authorization:bearer   " + alice,), 200),
            ((signed["bob"],), 404),
            ((f"Authorization: Bearer {server.token}",), 200),
            ((), 401),
            (("Authorization: Digest x",), 401),
            (("Authorization: Basic !",), 401),
            ((f"Authorization: Bearer {wrong_token()}",), 401),
        ):
            assert assert_same(server, "GET", path, *authorization) == status
            assert assert_same(server, "GET", f"{path}?wait=0.1", *authorization) == status
            beat = assert_same(server, "POST", "/session/heartbeat", f"X-Session-ID: {session}", *authorization)
            assert beat == (204 if status == 200 else status)
        server.revoke("alice")
        assert assert_same(server, "GET", path, signed["alice"]) == 401


# What follows asks the answers themselves, in this process.


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    """An application with a database of its own."""
    app = create_app(Config(state_dir=tmp_path, provider="clab", netlab=str(STANDIN)))
    app.extensions["remote_lab"].database.upgrade()
    return app


@pytest.fixture
def manager(app: Flask) -> LabManager:
    """Its manager."""
    manager: LabManager = app.extensions["remote_lab"]
    return manager


def environ(method: str, path: str, query: str = "", **headers: str) -> dict[str, str]:
    """A request as the answers want it."""
    return {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query, **headers}


def test_a_poll_and_a_heartbeat_ask_no_database(app: Flask, manager: LabManager) -> None:
    """However often."""
    fast = FastAnswers(app)
    first, second = manager.open_session().session_id, manager.open_session().session_id
    asked = [environ("GET", f"/session/{one}") for one in (first, second)]
    asked += [environ("POST", "/session/heartbeat", HTTP_X_SESSION_ID=one) for one in (first, second)]
    assert [type(fast.answer(dict(one))) for one in asked] == [Told] * 4
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        for _ in range(10):
            assert [type(fast.answer(dict(one))) for one in asked] == [Told] * 4
        assert statements == []
        manager.health()
        assert statements != []
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def test_what_somebody_else_has_written_is_read_by_the_routes(app: Flask, manager: LabManager) -> None:
    """Whoever answers for all connections waits for no database."""
    fast = FastAnswers(app)
    session_id = manager.open_session().session_id
    asked = environ("GET", f"/session/{session_id}")
    assert isinstance(fast.answer(dict(asked)), Told)
    with Database(manager.config.database).write() as transaction:
        transaction.execute(text("UPDATE sessions SET purpose = 'by somebody else'"))
    assert fast.answer(dict(asked)) is None
    assert manager.session(session_id).status == "active"
    assert isinstance(fast.answer(dict(asked)), Told)


def test_who_asks_is_alive(app: Flask, manager: LabManager) -> None:
    """A poll and a heartbeat count from when they are answered; who is held is there all the time."""
    now = 100.0
    manager.sessions_seen = seen = Liveness(lambda: now)
    fast = FastAnswers(app)
    manager.open_session()
    waiting = manager.open_session().session_id
    for one in (
        environ("GET", f"/session/{waiting}"),
        environ("POST", "/session/heartbeat", HTTP_X_SESSION_ID=waiting),
    ):
        now += 50
        assert seen.silence_seconds(waiting) == 50
        assert isinstance(fast.answer(one), Told)
        assert seen.silence_seconds(waiting) == 0
    hold = fast.answer(environ("GET", f"/session/{waiting}", "wait=30"))
    assert isinstance(hold, Hold)
    end = hold.begin(lambda: None)
    now += 1000
    assert seen.silence_seconds(waiting) == 0
    end()
    now += 7
    assert seen.silence_seconds(waiting) == 7


def test_promotion_that_comes_before_the_hold_has_begun(app: Flask, manager: LabManager) -> None:
    """Whoever looked before it is woken all the same, at once."""
    fast = FastAnswers(app)
    first, second = manager.open_session().session_id, manager.open_session().session_id
    hold = fast.answer(environ("GET", f"/session/{second}", "wait=30"))
    assert isinstance(hold, Hold)
    manager.end_session(first, "its test ended it")
    woken: list[str] = []
    hold.begin(lambda: woken.append(second))()
    assert woken == [second]
    told = fast.answer(environ("GET", f"/session/{second}", "wait=30"), was_held=True)
    assert isinstance(told, Told)
    assert b'"status":"active"' in told.body


def test_promotion_in_the_middle_of_a_look(app: Flask, manager: LabManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is about to be held when their turn comes is not held as one who has seen it."""
    fast = FastAnswers(app)
    first, second = manager.open_session().session_id, manager.open_session().session_id
    decide = manager.may_be_held

    def promote_and_decide(status: str, position: int) -> bool:
        manager.end_session(first, "its test ended it")
        return decide(status, position)

    monkeypatch.setattr(manager, "may_be_held", promote_and_decide)
    hold = fast.answer(environ("GET", f"/session/{second}", "wait=30"))
    assert isinstance(hold, Hold)
    woken: list[str] = []
    hold.begin(lambda: woken.append(second))()
    assert woken == [second]


def test_nobody_waits_for_those_who_write(app: Flask, manager: LabManager) -> None:
    """Somebody else commits between the look and the hold, while a writer here has the lock: it is not held."""
    fast = FastAnswers(app)
    manager.open_session()
    waiting = manager.open_session().session_id
    hold = fast.answer(environ("GET", f"/session/{waiting}", "wait=30"))
    assert isinstance(hold, Hold)
    with closing(sqlite3.connect(manager.database.path)) as elsewhere:
        elsewhere.execute("UPDATE sessions SET purpose = 'by somebody else'")
        elsewhere.commit()
    woken: list[str] = []
    with manager.database._write_turn():
        hold.begin(lambda: woken.append(waiting))()
        assert fast.answer(environ("GET", f"/session/{waiting}")) is None
    assert woken == [waiting]


def test_estimates_are_measured_by_a_thread(app: Flask, manager: LabManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the first poll of each turn; whoever asks meanwhile, or was held, hears the last ones."""
    fast = FastAnswers(app)
    first, _, waiting = (manager.open_session().session_id for _ in range(3))
    asked = environ("GET", f"/session/{waiting}")
    assert isinstance(fast.answer(dict(asked)), Told)
    manager.end_session(first, "its test ended it")
    measure = manager._outlook._measure
    answers = []

    def ask_and_measure(turn: int, active: Any) -> Any:
        answers.append(fast.answer(dict(asked)))
        return measure(turn, active)

    monkeypatch.setattr(manager._outlook, "_measure", ask_and_measure)
    assert fast.answer(dict(asked)) is None
    assert isinstance(fast.answer(dict(asked), was_held=True), Told)
    assert isinstance(fast.answer(environ("GET", f"/session/{waiting}", "wait=30")), Hold), "it needs none"
    assert answers == []
    manager.session(waiting)
    assert [type(one) for one in answers] == [Told]
    assert isinstance(fast.answer(dict(asked)), Told)


def test_without_room_it_is_answered_at_once(app: Flask, manager: LabManager) -> None:
    """With the time to ask again, which is soon; who was held has no need of it."""
    fast = FastAnswers(app)
    manager.open_session()
    asked = environ("GET", f"/session/{manager.open_session().session_id}", "wait=30")
    times = []
    for may_hold, was_held in ((False, False), (True, True)):
        told = fast.answer(dict(asked), may_hold, was_held)
        assert isinstance(told, Told)
        times.append(dict(told.headers).get("Retry-After"))
    assert times == ["1", None]


def test_what_fails_is_left_to_the_routes(app: Flask, manager: LabManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """There it is said, in one place."""
    fast = FastAnswers(app)
    session_id = manager.open_session().session_id

    def fail(*_arguments: object) -> None:
        raise RuntimeError("no memory of it")

    monkeypatch.setattr(manager.board, "sight_at_once", fail)
    assert fast.answer(environ("GET", f"/session/{session_id}")) is None


HOLDER = Holder(1, "ci", "nightly \u2028 é", "https://ci.example.org/1", datetime(2026, 1, 2, 3, 4, 5, 678, UTC))
VIEW = SessionView(UNKNOWN, "waiting", 3, None, None, 12.5, [HOLDER], 4, 5)


@pytest.mark.parametrize(
    "view",
    [
        VIEW,
        replace(VIEW, held_by=[HOLDER, Holder(2, None, None, None, None)], eta_seconds=None),
        replace(VIEW, status="active", slot=2, lease_expires_at=datetime(2026, 1, 2, tzinfo=UTC), eta_seconds=0),
        replace(VIEW, held_by=[], eta_seconds=1e-9),
    ],
)
def test_a_view_is_written_as_its_schema_writes_it(app: Flask, view: SessionView) -> None:
    """The schema stays the one place that says what is shown."""
    written = app.json.dumps(SessionStatus().dump(view), separators=(",", ":"))
    assert fast._encode(fast._dump(view)) == written
