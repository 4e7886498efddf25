"""Held polls that no thread holds: everybody gets an answer in the end, whatever comes in between."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from socket import SHUT_WR, socket
from typing import Any

import pytest
from doors import Door
from harness import STANDIN, Server, running, wait_until
from raw import connect, get, receive, status_of

from remote_lab.parking import Parking

THREADS = 4
CROWD = 30
"""More than there are threads."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that has as few threads as it may."""
    state_dir = tmp_path_factory.mktemp("server") / "state"
    with running(Server(state_dir, PROVIDER="clab", NETLAB=STANDIN, THREADS=THREADS)) as server:
        yield server


@pytest.fixture
def connections() -> Iterator[ExitStack]:
    """Closes whatever a test has opened."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def queue(server: Server) -> Iterator[list[str]]:
    """An active session and two that wait; in the end the queue is empty again."""
    yield [server.open_session() for _ in range(3)]
    while (head := server.call("GET", "/active-session")).status_code == 200:
        server.end_session(head.json()["session_id"])


def hold(server: Server, connections: ExitStack, session_id: str, *headers: str, seconds: float = 50) -> socket:
    """A connection on which a poll is held, and nothing else happens."""
    connection = connections.enter_context(connect(server))
    connection.sendall(get(f"/session/{session_id}?wait={seconds}", *headers))
    return connection


def wait_held(server: Server, held: int) -> None:
    """Wait until so many requests are held: their connections are open, and nobody has been answered."""
    wait_until(lambda: len(open_connections(server)) == held, f"{held} connections are open")


def open_connections(server: Server) -> list[str]:
    """The connections that the server has accepted."""
    [worker] = Path(f"/proc/{pid_of(server)}/task/{pid_of(server)}/children").read_text().split()
    sockets = set()
    for file in Path(f"/proc/{worker}/fd").iterdir():
        try:
            sockets.add(str(file.readlink()))
        except FileNotFoundError:
            continue  # closed meanwhile
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    port = f":{server.port:04X}"
    return [
        line[9] for line in lines if line[1].endswith(port) and f"socket:[{line[9]}]" in sockets and line[3] != "0A"
    ]


def pid_of(server: Server) -> int:
    """The arbiter's pid."""
    assert server.process is not None
    return server.process.pid


def view_of(answer: bytes) -> dict[str, Any]:
    """What a session's status says."""
    assert status_of(answer) == 200, answer
    view: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return view


def test_more_are_held_than_there_are_threads(server: Server, connections: ExitStack, queue: list[str]) -> None:
    """Others are served meanwhile; when somebody leaves, all hear of their new place."""
    ids = queue + [server.open_session() for _ in range(CROWD - len(queue))]
    held = [hold(server, connections, session_id) for session_id in ids[1:]]
    wait_held(server, CROWD - 1)
    assert server.call("GET", "/queue").status_code == 200
    server.end_session(ids[0])
    answers = [receive(one) for one in held]
    assert [view_of(one)["position"] for one in answers] == list(range(CROWD - 1))
    assert [view_of(one)["status"] for one in answers] == ["active"] + ["waiting"] * (CROWD - 2)
    assert [one for one in answers if b"Retry-After" in one] == []
    again = get(f"/session/{ids[5]}")
    held[4].sendall(again)
    assert view_of(receive(held[4]))["position"] == 4, "the connection goes on"


def test_a_change_behind_wakes_nobody(server: Server, connections: ExitStack, queue: list[str]) -> None:
    """Only one's own place counts."""
    held = hold(server, connections, queue[1])
    wait_held(server, 1)
    server.end_session(queue[2])
    server.open_session()
    held.settimeout(0.3)
    with pytest.raises(TimeoutError):
        held.recv(1)


def test_time_over(server: Server, connections: ExitStack, queue: list[str]) -> None:
    """Answered as it is, without a word on when to ask again; not before."""
    began = time.monotonic()
    answer = receive(hold(server, connections, queue[1], seconds=0.3))
    assert time.monotonic() - began >= 0.3
    assert (view_of(answer)["status"], b"Retry-After" in answer) == ("waiting", False)


def test_who_was_held_is_not_sent_away_by_the_routes(tmp_path: Path, connections: ExitStack) -> None:
    """Another process makes a token, so that of a held poll has to be looked up: its answer is that of any held one."""
    with running(Door(tmp_path / "state", THREADS=THREADS)) as door:
        token = door.make("who-is-held")
        ids = [door.open_for(one) for one in (door.token, door.token, token)]
        held = hold(door, connections, ids[2], f"Authorization: Bearer {token}")
        wait_held(door, 1)
        door.make("somebody-else")
        door.end_session(ids[0])
        answer = receive(held)
        assert (view_of(answer)["position"], b"Retry-After" in answer) == (1, False)
        for session_id in ids[1:]:
            door.end_session(session_id)


def test_ended_by_somebody_else(server: Server, connections: ExitStack, queue: list[str]) -> None:
    """With the reason; by the route that says it to everybody."""
    held = hold(server, connections, queue[2])
    wait_held(server, 1)
    server.call("DELETE", f"/session/{queue[2]}?reason=somebody else needs the place")
    answer = receive(held)
    assert status_of(answer) == 404
    assert b"somebody else needs the place" in answer


def test_who_hangs_up_is_let_go(server: Server, connections: ExitStack, queue: list[str]) -> None:
    """At once, and others stay."""
    held = [hold(server, connections, session_id) for session_id in (queue[1], queue[2], queue[2])]
    wait_held(server, 3)
    held[1].close()
    wait_held(server, 2)
    held[0].shutdown(SHUT_WR)
    wait_held(server, 1)
    server.end_session(queue[1])
    assert view_of(receive(held[2]))["position"] == 1


def test_who_says_more_is_heard_afterwards(server: Server, connections: ExitStack, queue: list[str]) -> None:
    """A second request behind the one that is held is answered behind it."""
    held = hold(server, connections, queue[2])
    wait_held(server, 1)
    held.sendall(get("/queue"))
    held.sendall(get(f"/session/{queue[1]}"))
    server.end_session(queue[0])
    assert view_of(receive(held))["position"] == 1
    assert status_of(receive(held)) == 200
    assert view_of(receive(held))["status"] == "active"


def test_the_same_session_may_be_held_twice(server: Server, connections: ExitStack, queue: list[str]) -> None:
    """As by a client that lost a connection and does not know it."""
    held = [hold(server, connections, queue[1]) for _ in range(2)]
    wait_held(server, 2)
    server.end_session(queue[0])
    assert [view_of(receive(one))["status"] for one in held] == ["active"] * 2


def test_held_requests_leave_places_for_others(tmp_path: Path, connections: ExitStack) -> None:
    """Half of the places at most; who finds none is told when to ask again. A server that ends answers all of them."""
    with running(Small(tmp_path / "state", PROVIDER="clab", NETLAB=STANDIN, THREADS=THREADS)) as limited:
        limited.open_session()
        waiting = limited.open_session()
        held = [hold(limited, connections, waiting) for _ in range(32)]
        wait_held(limited, 32)
        answer = receive(hold(limited, connections, waiting, "Connection: close"))
        assert re.search(rb"\r\nRetry-After: \d+\r\n", answer)
        assert limited.call("GET", "/queue").status_code == 200
        wait_until(lambda: len(open_connections(limited)) == 32, "the one that was not held is closed")
        held.pop().close()
        wait_held(limited, 31)
        assert limited.terminate(signal.SIGTERM) == 0
        answers = [receive(one) for one in held]
        assert [view_of(one)["status"] for one in answers] == ["waiting"] * 31
        assert [one for one in answers if b"\r\nConnection: close\r\n" not in one] == []
        assert "Traceback" not in limited.log.read_text()


class Small(Server):
    """A server that may have 160 open files, and so takes 64 connections."""

    def spawn(self) -> subprocess.Popen[bytes]:
        limited = ("prlimit", "--nofile=160:160", sys.executable, "-m", "remote_lab", "serve")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*limited, "--port", str(self.port), *self.options],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self.environment,
                start_new_session=True,
            )
        return self.process


def test_what_is_woken_before_it_is_parked(tmp_path: Path) -> None:
    """The change that comes between the look and the hold is not lost, and what is over is not woken again."""
    rings: list[str] = []
    parking: Parking[str] = Parking(2, lambda: rings.append("ring"))
    wakers = []

    def begin_late(wake: Any) -> Any:
        wakers.append(wake)
        wake()
        return lambda: rings.append("ended")

    parking.park("early", 10.0, begin_late)
    assert rings == ["ring"]
    assert parking.due(1.0) == ["early"]
    assert rings == ["ring", "ended"]
    wakers[0]()
    parking.park("early", 10.0, lambda _wake: lambda: rings.append("ended again"))
    assert parking.due(2.0) == []
    assert ("early" in parking, parking.is_full, parking.seconds_left(4.0)) == (True, False, 6.0)
    assert parking.due(10.0) == ["early"]
    assert rings[-1] == "ended again"
    assert (len(parking), parking.due(11.0)) == (0, [])


def test_wakers_on_many_threads_ring_once_until_somebody_looks() -> None:
    """The order is that of the waking."""
    rings: list[str] = []
    parking: Parking[int] = Parking(10, lambda: rings.append("ring"))
    wakers: dict[int, Any] = {}
    for guest in range(5):
        parking.park(guest, 100.0 + guest, lambda wake, guest=guest: wakers.setdefault(guest, wake) and (lambda: None))
    for guest in (3, 1, 4):
        wakers[guest]()
    assert rings == ["ring"]
    assert parking.due(0.0) == [3, 1, 4]
    wakers[0]()
    assert rings == ["ring", "ring"]
    assert parking.due(102.0) == [0, 2]


def test_what_cannot_be_held_is_not_kept() -> None:
    """A hold that cannot begin leaves nothing."""
    parking: Parking[str] = Parking(1, lambda: None)

    def fail(_wake: Any) -> Any:
        raise MemoryError

    with pytest.raises(MemoryError):
        parking.park("guest", 1.0, fail)
    assert len(parking) == 0
    assert parking.everybody() == []
