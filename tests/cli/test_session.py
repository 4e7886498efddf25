"""`remote-lab session`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner
from harness import Server, list_labs, wait_until

from remote_lab.config import Config
from remote_lab.core.overview import SessionRecord

from .conftest import TOPOLOGY, Operator


def test_the_queue_is_listed_in_its_order(server: Server, operator: Operator, session_id: str) -> None:
    """Who is active in which slot with which lab, who waits, and for what."""
    second = server.open_session()
    third = server.call("POST", "/session", json={"purpose": "nightly of main"}).json()["session_id"]
    header, first_row, second_row, third_row = operator.rows("session", "list")
    assert header[:3] == ["SESSION", "STATE", "SLOT"]
    assert first_row[:4] == [session_id[:8], "active", "1", "0"]
    assert first_row[-3:] == ["demo.yml", "running", "-"]
    assert second_row[:4] == [second[:8], "active", "2", "1"]
    assert third_row[:4] == [third[:8], "waiting", "-", "2"]
    assert third_row[-3:] == ["nightly", "of", "main"]


def test_programs_get_whole_ids_and_iso_times(operator: Operator, session_id: str) -> None:
    """Everything the table has, and nothing shortened."""
    (one,) = operator.data("session", "list")
    assert (one["session_id"], one["state"], one["position"], one["slot"]) == (session_id, "active", 0, 1)
    assert one["lab"]["topology"] == "demo.yml"
    assert datetime.fromisoformat(one["activated_at"]).utcoffset() is not None
    assert operator.data("session", "show", session_id) == one


def test_a_session_is_named_by_its_beginning(server: Server, operator: Operator, session_id: str) -> None:
    """Four characters are enough, in any case; the answer has the whole id."""
    assert session_id in operator.says("session", "show", session_id[:4].upper())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("show", "abc"), "'abc' is no session id: give it whole, or at least its first 4 characters"),
        (("end", "%%%%"), "'%%%%' is no session id"),
        (("extend", "ffffffff-ffff", "60"), "No session begins with 'ffffffff-ffff'"),
    ],
)
def test_a_name_that_means_no_session_is_refused(operator: Operator, words: tuple[str, ...], sentence: str) -> None:
    """With the name and what to do."""
    assert sentence in operator.complains("session", *words)


def test_a_beginning_of_two_sessions_is_refused(operator: Operator, server: Server) -> None:
    """Nobody is ended by mistake: both are named, and both go on."""
    opened = [server.open_session() for _ in range(2)]
    alike = [f"abcd{number}{one[5:]}" for number, one in enumerate(opened)]
    with closing(sqlite3.connect(server.state_dir / "remote-lab.sqlite3")) as database, database:
        for one, other in zip(opened, alike, strict=True):
            database.execute("UPDATE sessions SET id = ? WHERE id = ?", (other, one))
    database.close()
    complaint = operator.complains("session", "end", "abcd")
    assert all(one in complaint for one in alike)
    assert len(operator.data("session", "list")) == 2
    assert operator.says("session", "end", "abcd1") == f"Session {alike[1][:8]} ended.\n"


def test_ending_a_session_takes_its_lab_down_and_promotes_the_next(
    server: Server, operator: Operator, session_id: str
) -> None:
    """When the command returns the lab is down; the owner is told that the session ended."""
    operator_says = operator.says("session", "end", session_id[:8])
    assert operator_says == f"Session {session_id[:8]} ended.\nLab demo.yml is down.\n"
    assert list_labs(server.state_dir) == []
    assert server.call("GET", f"/session/{session_id}").json()["reason"] == "an operator ended it"
    assert "ended" in operator.complains("session", "end", session_id)


def test_all_sessions_are_ended_and_nobody_is_promoted_on_the_way(server: Server, operator: Operator) -> None:
    """Those who wait go first, so that no slot is given to somebody who is about to be ended."""
    opened = [server.open_session() for _ in range(4)]
    assert operator.rows("session", "end", "--all")[-1][1] in (opened[0][:8], opened[1][:8])
    ended = [one for one in operator.data("session", "list", "--ended") if one["session_id"] in opened]
    assert len(ended) == len(opened)
    assert {one["session_id"] for one in ended if one["activated_at"]} == set(opened[:2])
    assert operator.says("session", "end", "--all") == "The queue is empty.\n"


def test_end_wants_names_or_all(operator: Operator) -> None:
    """Neither, or both, is wrong usage."""
    assert "--all" in operator.complains("session", "end", status=2)
    assert "--all" in operator.complains("session", "end", "abcd", "--all", status=2)


def test_the_ci_job_of_a_session_is_shown(server: Server, operator: Operator) -> None:
    """By its id where it has said no more; a job that is over has ended what it left."""
    wish = {"ci_job_id": "build-4711", "ci_job_url": "https://ci.example.org/4711"}
    full = server.call("POST", "/session", json=wish).json()["session_id"]
    bare = server.call("POST", "/session", json={"ci_job_id": "build-4712"}).json()["session_id"]
    assert ["CI", "job", "id", "build-4711"] in operator.rows("session", "show", full)
    assert operator.data("session", "show", full)["ci_job_id"] == "build-4711"
    assert [row[-1] for row in operator.rows("session", "list")[1:]] == [wish["ci_job_url"], "build-4712"]
    server.call("DELETE", "/session", params={"ci_job": "build-4712"})
    assert operator.data("session", "show", bare)["end_reason"] == "its CI job gave it back"


def test_ended_sessions_are_listed_with_the_reason(server: Server, operator: Operator, session_id: str) -> None:
    """As long as they are kept; a live list does not have them."""
    server.end_session(session_id)
    assert operator.says("session", "list") == "The queue is empty.\n"
    header, row, *_ = operator.rows("session", "list", "--ended")
    assert header == ["SESSION", "ENDED", "AFTER", "WHY", "FOR"]
    assert row[0] == session_id[:8]
    assert "Why" in operator.says("session", "show", session_id)


def test_a_lease_is_extended_within_the_limit(server: Server, operator: Operator, session_id: str) -> None:
    """From now on; what is too long is refused with what is possible."""
    assert f"Session {session_id[:8]} ends at " in operator.says("session", "extend", session_id[:8], "30m")
    left = operator.data("session", "show", session_id)["lease_expires_at"]
    seconds = (datetime.fromisoformat(left) - datetime.now().astimezone()).total_seconds()
    assert 1700 < seconds < 1801
    assert "too long" in operator.complains("session", "extend", session_id, "30d")
    assert "no time" in operator.complains("session", "extend", session_id, "soon", status=2)


def test_without_a_server_a_session_is_ended_here(make_server: Callable[..., Server], tmp_path: Path) -> None:
    """Its lab is really down, the next in the queue is promoted, and the next server knows all that."""
    server = make_server().start()
    operator = Operator(server, tmp_path)
    first, second = server.open_session(), server.open_session()
    assert server.acquire(first, TOPOLOGY).status_code == 200
    server.terminate()
    assert operator.says("session", "end", first[:8]).endswith("Lab demo.yml is down.\n")
    assert list_labs(server.state_dir) == []
    server.start()
    assert server.status(second) == ("active", 0)
    assert "an operator ended it" in server.call("GET", f"/session/{first}").json()["detail"]


def test_without_a_server_nothing_is_booted_ahead_here(make_server: Callable[..., Server], tmp_path: Path) -> None:
    """The command would end it at once; whoever waits has their only try by the next server."""
    server = make_server().start()
    operator = Operator(server, tmp_path)
    first, _ = server.open_session(), server.open_session()
    assert server.call("POST", "/session", files={"topology": ("demo.yml", TOPOLOGY)}).status_code == 201
    server.terminate()
    server.settings["AHEAD"] = 1
    operator.says("session", "end", first[:8])
    server.start()
    wait_until(lambda: list_labs(server.state_dir), "the next server boots it")
    assert [one["lab"] is not None for one in operator.data("session", "list")] == [False, True]


def test_a_boot_that_a_killed_server_left_is_ended_here(make_server: Callable[..., Server], tmp_path: Path) -> None:
    """`kill -9` in the middle of a boot, then an operator who does not want to start the server again."""
    server = make_server().start()
    operator = Operator(server, tmp_path)
    session_id = server.open_session()
    asynchronous = {"Prefer": "respond-async"}
    topology = {"topology": ("slow.yml", "standin: { up_hangs: true }\nnodes: [ r1 ]\n")}
    assert server.call("POST", "/lab", session_id, files=topology, headers=asynchronous).status_code == 202
    wait_until(lambda: list(server.state_dir.glob("labs/*/lab/*.pickle")), "the boot has begun")
    server.kill()
    assert operator.data("session", "list")[0]["lab"]["state"] == "starting"
    operator.says("session", "end", "--all")
    assert operator.data("session", "list", "--ended")[0]["lab"]["state"] == "stopped"
    assert list_labs(server.state_dir) == []


def test_a_state_folder_that_no_server_has_used_is_said(make_server: Callable[..., Server], tmp_path: Path) -> None:
    """Most likely it is the wrong one; nothing is created in it."""
    operator = Operator(make_server(), tmp_path)
    for words in (("session", "list"), ("session", "end", "--all"), ("lab", "show"), ("lab", "log")):
        assert "REMOTE_LAB_STATE_DIR" in operator.complains(*words)
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("is_stopped", [False, True], ids=["beside a server", "without one"])
def test_a_session_that_somebody_else_ends_meanwhile_has_ended(
    server: Server, operator: Operator, session_id: str, monkeypatch: pytest.MonkeyPatch, is_stopped: bool
) -> None:
    """Between the look at the queue and the call its owner may give it back: that is what was wanted."""
    if is_stopped:
        server.terminate()
    command = import_module("remote_lab.cli.session")
    look = command._chosen

    def look_and_let_it_end(config: Config, which: Sequence[str]) -> list[SessionRecord]:
        found = look(config, which)
        operator.run("session", "end", session_id)
        return found

    monkeypatch.setattr(command, "_chosen", look_and_let_it_end)
    done = CliRunner(env=server.environment).invoke(command.end, ["--all"])
    assert (done.exit_code, done.output) == (
        0,
        f"Session {session_id[:8]} had ended by then.\nLab demo.yml is down.\n",
    )
    if is_stopped:
        server.start()
