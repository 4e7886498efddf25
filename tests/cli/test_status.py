"""`remote-lab status`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from harness import Server

from .conftest import TOPOLOGY, Operator


def test_a_running_server_says_who_and_where_it_is(server: Server, operator: Operator, session_id: str) -> None:
    """Address, process, slots, who has them and who waits."""
    assert server.process is not None
    waiting = [server.open_session() for _ in range(2)][-1]
    text = operator.says("status")
    assert f"{server.url}, up " in text
    assert f"pid {server.process.pid} of " in text
    assert "2 of 2 in use" in text
    assert "1 waiting" in text
    assert waiting[:8] in text
    assert session_id not in text
    data = operator.data("status")
    assert (data["running"], data["server"]["pid"], data["slots"]) == (True, server.process.pid, 2)
    assert data["sessions"][0]["session_id"] == session_id
    assert [one["topology"] for one in data["labs"]] == ["demo.yml"]


def test_no_server_is_exit_status_3(make_server: Callable[..., Server], tmp_path: Path) -> None:
    """Before the first start, and after an end, when the queue is still on record."""
    server = make_server()
    operator = Operator(server, tmp_path)
    assert "not running" in operator.says("status", status=3)
    server.start()
    session_id = server.open_session()
    assert server.acquire(session_id, TOPOLOGY).status_code == 200
    server.terminate()
    assert session_id[:8] in operator.says("status", status=3)
    server.start().kill()
    data = operator.data("status", status=3)
    assert (data["running"], len(data["sessions"]), data["labs"][0]["state"]) == (False, 1, "running")


def test_looking_does_not_keep_a_server_from_starting(make_server: Callable[..., Server], tmp_path: Path) -> None:
    """And creates nothing."""
    server = make_server()
    Operator(server, tmp_path).says("status", status=3)
    assert not server.state_dir.exists()
    server.start()
    assert server.terminate() == 0


def test_a_server_that_does_not_answer_is_exit_status_1(server: Server, operator: Operator, session_id: str) -> None:
    """With the address that was asked; the database is shown all the same."""
    metadata = server.state_dir / "server.json"
    before = metadata.read_text()
    metadata.write_text(json.dumps({**json.loads(before), "address": "127.0.0.1:1"}))
    try:
        done = operator.run("status", status=1)
        assert "does not answer on http://127.0.0.1:1" in done.stdout
        assert session_id[:8] in done.stdout
        assert "does not answer on http://127.0.0.1:1" in operator.complains("session", "end", session_id)
    finally:
        metadata.write_text(before)
