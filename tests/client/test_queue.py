"""Waiting for the turn at a real server, and ends of clients that leave nothing behind."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from harness import Server, wait_until

from remote_lab.client import RemoteLabClient, SessionGoneError

from .fake_peer import FakePeer, Reply

Join = Callable[..., RemoteLabClient]


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def queue_length(server: Server) -> int:
    return int(server.call("GET", "/debug/health").json()["queue_length"])


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    """A Python process that runs a script and says what goes wrong on stderr."""
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_the_queue_explains_itself(
    server: Server, join_server: Join, pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    """Position and who holds the lab, once; and the turn comes by a held request, not by a poll."""
    holder = join_server(purpose="nightly")
    with caplog.at_level(logging.INFO, "remote_lab.client"):
        waiting = pool.submit(join_server, poll_seconds=30, purpose="me")
        wait_until(lambda: "held by" in caplog.text, "the place was told")
        assert holder.waiting() == 1
        holder.close()
        client = waiting.result(10)
    said = [record.message for record in caplog.records]
    (place,) = [line for line in said if line.startswith("position 1")]
    assert place.endswith(", held by nightly")
    assert f"Session {client.session_id[:8]} is active." in said
    assert client.waiting() == 0


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_a_restarted_server_costs_nobody_the_place(
    server: Server,
    join_server: Join,
    pool: ThreadPoolExecutor,
    caplog: pytest.LogCaptureFixture,
    sig: signal.Signals,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Whoever waits keeps the place, is active when the turn comes, and gets a lab."""
    holder = join_server()
    topology = tmp_path_factory.mktemp("topology") / "demo.yml"
    topology.write_text("nodes: [ r1 ]\n")
    with caplog.at_level(logging.INFO, "remote_lab.client"):
        waiting = pool.submit(join_server)
        wait_until(lambda: "held by" in caplog.text, "the place was told")
        server.kill() if sig == signal.SIGKILL else server.terminate()
        wait_until(lambda: "no word from the queue" in caplog.text, "the client has noticed")
        server.start()
        assert queue_length(server) == 2
        holder.close()
        client = waiting.result(20)
    assert "The server answers again." in caplog.text
    assert [device.name for device in client.acquire(topology, True)] == ["r1"]


def test_an_ended_session_stops_waiting_at_once(
    server: Server, join_server: Join, pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    """With the reason that whoever ended it gave."""
    join_server()
    with caplog.at_level(logging.INFO, "remote_lab.client"):
        waiting = pool.submit(join_server, poll_seconds=30, ci_job="job-8")
        wait_until(lambda: "held by" in caplog.text, "the place was told")
    assert RemoteLabClient.end_ci_job(server.url, "job-8") == 1
    with pytest.raises(SessionGoneError, match="its CI job"):
        waiting.result(5)


def test_a_ci_job_gives_everything_back(server: Server, join_server: Join, pool: ThreadPoolExecutor) -> None:
    """Its sessions end, whoever waits for one of them is told why, and a second time there is nothing to end."""
    client = join_server(ci_job="job-7")
    assert RemoteLabClient.end_ci_job(server.url, "job-7") == 1
    with pytest.raises(SessionGoneError, match="CI job"):
        client.status()
    assert RemoteLabClient.end_ci_job(server.url, "job-7") == 0


def test_a_joined_session_is_left_open(server: Server, join_server: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    """By argument or by environment; only who opened it ends it."""
    owner = join_server()
    with join_server(session_id=owner.session_id) as guest:
        assert (guest.session_id, guest.owns_session, owner.owns_session) == (owner.session_id, False, True)
    monkeypatch.setenv("REMOTE_LAB_SESSION_ID", owner.session_id)
    with join_server() as guest:
        assert guest.session_id == owner.session_id
    assert guest.session_id == ""
    assert owner.status().running is False


class Known(RemoteLabClient):
    """A client that somebody knows before it is its turn."""

    def __init__(self, known: list[Known], **arguments: Any) -> None:
        known.append(self)
        super().__init__(**arguments)


def test_close_from_another_thread_ends_the_wait_for_the_turn(
    server: Server, join_server: Join, pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    """At once, with the place given back."""
    holder = join_server()
    known: list[Known] = []
    with caplog.at_level(logging.INFO, "remote_lab.client"):
        waiting = pool.submit(Known, known, base_url=server.url, heartbeat=None)
        wait_until(lambda: "held by" in caplog.text, "the place was told")
    known[0].close()
    with pytest.raises(requests.RequestException, match=r"is closed|its owner ended it"):
        waiting.result(5)
    assert (known[0].session_id, holder.waiting()) == ("", 0)


def test_close_from_another_thread_ends_an_acquire(
    server: Server,
    join_server: Join,
    pool: ThreadPoolExecutor,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    """At once, with the boot that it waits for; there is nothing to give back any more, and nothing fails to be."""
    client = join_server()
    topology = tmp_path / "hangs.yml"
    topology.write_text("standin: { up_hangs: true }\nnodes: [ r1 ]\n")
    with caplog.at_level(logging.INFO, "remote_lab.client"):
        acquiring = pool.submit(client.acquire, topology, True)
        wait_until(lambda: "booting hangs.yml" in caplog.text, "it boots")
        client.close()
        with pytest.raises(requests.RequestException, match=r"is closed|its owner ended it"):
            acquiring.result(5)
    assert [record.message for record in caplog.records if record.levelno > logging.INFO] == []
    server.wait_quiet()


def test_a_lease_is_extended(server: Server, join_server: Join) -> None:
    """By seconds from now."""
    client = join_server()
    client.extend(60)
    answer: dict[str, Any] = server.call("GET", f"/session/{client.session_id}").json()
    assert answer["lease_expires_at"] is not None


UNCLOSED = """
    import sys
    from remote_lab.client import RemoteLabClient
    client = RemoteLabClient(sys.argv[1])
"""


def test_an_unclosed_client_gives_its_session_back(server: Server) -> None:
    """When the interpreter ends in order, and when nobody has the client any more."""
    server.wait_quiet()
    process = start(UNCLOSED, server.url)
    assert (process.communicate(timeout=30)[1], process.returncode) == ("", 0)
    assert queue_length(server) == 0
    RemoteLabClient(server.url, heartbeat=0.05)
    wait_until(lambda: queue_length(server) == 0, "the garbage was collected")


def test_a_forked_child_ends_nothing(server: Server) -> None:
    """The session is its parent's."""
    server.wait_quiet()
    code = (
        UNCLOSED
        + """
    import os, requests
    if os.fork():
        assert os.wait()[1] == 0
        print(client.status().running, flush=True)
    """
    )
    process = start(code, server.url)
    assert (process.communicate(timeout=30)[0], process.returncode) == ("False\n", 0)
    assert queue_length(server) == 0


def test_ctrl_c_while_the_session_is_being_opened(peer: FakePeer) -> None:
    """The server opens it, the client does not know its id yet, and gives it back all the same."""
    hold = threading.Event()
    peer.says("POST", "/session", Reply(201, {"session_id": "s-1", "position": 0}, hold=hold))
    process = start(UNCLOSED, peer.url)
    peer.wait_for("POST", "/session", 1)
    os.kill(process.pid, signal.SIGINT)
    wait_until(lambda: _has_taken_its_signals(process.pid), "the signal was taken")
    hold.set()
    _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert peer.count("DELETE", "/session/s-1") == 1


def _has_taken_its_signals(pid: int) -> bool:
    """Whether no signal waits to be taken (proc(5), SigPnd and ShdPnd)."""
    with open(f"/proc/{pid}/status") as status:  # noqa: PTH123
        pending = [line.split()[1] for line in status if line.startswith(("SigPnd", "ShdPnd"))]
    return all(int(mask, 16) == 0 for mask in pending)


def test_ctrl_c_and_a_server_that_says_nothing(peer: FakePeer) -> None:
    """The wait for the answer is bounded, and what may be left is said."""
    hold = threading.Event()
    peer.says("POST", "/session", Reply(201, {"session_id": "s-1", "position": 0}, hold=hold))
    code = UNCLOSED.replace("sys.argv[1]", "sys.argv[1], request_timeout=60")
    process = start(code, peer.url)
    peer.wait_for("POST", "/session", 1)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=9)
    hold.set()
    assert "KeyboardInterrupt" in errors
    assert "ends when stale" in errors


def test_ctrl_c_in_the_queue(server: Server, join_server: Join) -> None:
    """The place is given back."""
    join_server()
    process = start(UNCLOSED, server.url)
    wait_until(lambda: queue_length(server) == 2, "the second waits")
    os.kill(process.pid, signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=30)[1]
    assert queue_length(server) == 1
