"""`kill -9` of the server at every step of a session, by a table and at random, and what must be true after it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from harness import STANDIN, Server, list_labs, wait_until

PLAIN = "nodes: [ r1 ]\n"
SLOW_UP = "nodes: [ r1 ]\nstandin: { up_seconds: 600 }\n"
SLOW_DOWN = "nodes: [ r1 ]\nstandin: { down_seconds: 0.3 }\n"
STUCK_DOWN = "nodes: [ r1 ]\nstandin: { down_hangs: true }\n"
RANDOM_ROUNDS = 30


@pytest.fixture
def standin(serve: Callable[..., Server]) -> Server:
    return serve(PROVIDER="clab", NETLAB=STANDIN, REAPER_SECONDS=0.2, TEARDOWN_SECONDS=2)


def restart(server: Server) -> None:
    server.kill()
    server.start()


def processes_in(folder: Path) -> list[int]:
    """The pids of all processes that work below a folder."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and (process / "cwd").readlink().is_relative_to(folder):
                found.append(int(process.name))
        except OSError:
            continue  # ended meanwhile
    return found


def nothing_is_left(server: Server) -> bool:
    """No process of a lab, no working directory of one."""
    return not list_labs(server.state_dir) and not processes_in(server.state_dir / "labs")


def test_killed_while_waiting(standin: Server) -> None:
    """Who was active is, who waited does, in the same order."""
    ids = [standin.open_session() for _ in range(4)]
    restart(standin)
    assert [standin.status(one) for one in ids] == [("active", 0), ("waiting", 1), ("waiting", 2), ("waiting", 3)]


def test_killed_while_active(standin: Server) -> None:
    """Without a lab: the session goes on and can have one."""
    session_id = standin.open_session()
    restart(standin)
    assert standin.acquire(session_id, PLAIN).json()["reused"] is False


def test_killed_while_booting(standin: Server) -> None:
    """What was started is ended, the slot is free, the session keeps it."""
    session_id = standin.open_session()
    with ThreadPoolExecutor(1) as pool:
        cut_off = pool.submit(standin.acquire, session_id, SLOW_UP)
        wait_until(lambda: processes_in(standin.state_dir / "labs"), "netlab is at work")
        restart(standin)
        assert isinstance(cut_off.exception(), requests.ConnectionError)
    assert standin.acquire(session_id, PLAIN).json()["reused"] is False
    assert len(list_labs(standin.state_dir)) == 1
    wait_until(lambda: not processes_in(standin.state_dir / "labs"), "the first netlab has been ended")


def test_killed_while_running(standin: Server) -> None:
    """The same lab with the same references."""
    session_id = standin.open_session()
    for _ in range(3):
        standin.acquire(session_id, PLAIN)
    before = (list_labs(standin.state_dir), standin.call("GET", "/lab", session_id).json())
    restart(standin)
    assert (list_labs(standin.state_dir), standin.call("GET", "/lab", session_id).json()) == before


def test_killed_while_stopping(standin: Server) -> None:
    """The teardown is done again, then the next boots."""
    first, second = standin.open_session(), standin.open_session()
    standin.acquire(first, STUCK_DOWN)
    standin.end_session(first)
    assert standin.status(second) == ("active", 0)
    restart(standin)
    assert standin.status(second) == ("active", 0)
    assert standin.call("GET", f"/session/{first}").status_code == 404
    assert standin.acquire(second, PLAIN).status_code == 200


def test_a_killed_worker_is_replaced(standin: Server) -> None:
    """Only one of the two processes dies: the other starts it anew, and nothing is lost."""
    ids = [standin.open_session() for _ in range(2)]
    standin.acquire(ids[0], PLAIN)
    assert standin.process is not None
    [worker] = Path(f"/proc/{standin.process.pid}/task/{standin.process.pid}/children").read_text().split()
    os.kill(int(worker), 9)
    standin.wait_until_it_answers()
    assert [standin.status(one) for one in ids] == [("active", 0), ("waiting", 1)]
    assert standin.acquire(ids[0], PLAIN).json()["reused"] is True


@dataclass
class Client:
    """Somebody in the queue, and what the server has told them."""

    session_id: str
    acquired: int = 0
    pending: list[Future[requests.Response]] = field(default_factory=list)

    def settle(self) -> None:
        """Hear the answers that came; a call that was cut off has none."""
        for call in self.pending:
            if call.exception() is None and call.result().status_code == 200:
                self.acquired += 1
        self.pending.clear()


class Chaos:
    """One server, clients that do things at random, and what is known of them."""

    def __init__(self, server: Server, dice: random.Random, pool: ThreadPoolExecutor) -> None:
        self.server = server
        self.dice = dice
        self.pool = pool
        self.queue: list[Client] = []

    def act(self) -> None:
        """Do one thing at random."""
        kind = self.dice.choice(["open", "open", "acquire", "acquire", "acquire", "leave", "destroy", "look"])
        if kind == "open" and len(self.queue) < 6:
            self.queue.append(Client(self.server.open_session()))
        elif kind == "leave" and self.queue:
            gone = self.queue.pop(self.dice.randrange(len(self.queue)))
            self.server.end_session(gone.session_id)
        elif self.queue and kind == "acquire":
            head = self.queue[0]
            topology = self.dice.choice([PLAIN, SLOW_DOWN])
            head.pending.append(self.pool.submit(self.server.acquire, head.session_id, topology))
        elif self.queue and kind == "destroy":
            self.server.call("DELETE", "/lab", self.queue[0].session_id)
        elif self.queue:
            self.server.status(self.queue[-1].session_id)

    def check_after_a_restart(self) -> None:
        """Nobody is lost, the order is as it was, and the head gets a slot and a lab."""
        for client in self.queue:
            client.settle()
        positions = [self.server.status(client.session_id)[1] for client in self.queue]
        assert positions == list(range(len(self.queue)))
        if not self.queue:
            return
        head = self.queue[0].session_id
        self.server.wait_active(head)
        states = [self.server.status(client.session_id)[0] for client in self.queue]
        assert states == ["active"] + ["waiting"] * (len(self.queue) - 1)
        self.server.call("DELETE", "/lab", head)
        answer = self.server.acquire(head, PLAIN)
        assert answer.status_code == 200, answer.text


@pytest.mark.timeout(400)
def test_killed_at_random(standin: Server) -> None:
    """Thirty rounds of clients at random with a kill -9 in the middle; the seed is in the failure."""
    seed = random.SystemRandom().randrange(1_000_000)
    print("seed", seed)  # noqa: T201 - pytest shows it when the test fails
    with ThreadPoolExecutor(16) as pool:
        chaos = Chaos(standin, random.Random(seed), pool)
        for _ in range(RANDOM_ROUNDS):
            for _ in range(chaos.dice.randrange(1, 8)):
                chaos.act()
            restart(standin)
            chaos.check_after_a_restart()
        for client in chaos.queue:
            standin.end_session(client.session_id)
    wait_until(lambda: nothing_is_left(standin), "nothing is left")
