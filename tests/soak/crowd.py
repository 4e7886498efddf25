"""Clients of a queue that come, wait, hang up, come back under the same id, or never do."""

from __future__ import annotations

import random
import socket
import threading
import time
from dataclasses import dataclass, field

import requests
from harness import Server

HELD_SECONDS = 5
ARRIVAL_SECONDS = 3.0
AWAY_SECONDS = 1.5


@dataclass(eq=False)
class Member:
    """One of the crowd, on a thread of its own."""

    server: Server
    dice: random.Random
    positions: list[int] = field(default_factory=list)
    end: str = ""
    """How it ended: served, away (it never came back), or too late (it came back when its time was over)."""
    problem: str | None = None
    refusals: int = 0
    """How often it was told that the server has no room."""

    def __post_init__(self) -> None:
        self.hangs_up = self.dice.random() < 0.3
        self.returns = self.dice.random() < 0.95
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            time.sleep(self.dice.uniform(0, ARRIVAL_SECONDS))
            self._stay(self._ask("POST", "/session").json()["session_id"])
        except Exception as error:  # noqa: BLE001 - whatever it is, the test is told
            self.problem = f"{type(error).__name__}: {error}"

    def _stay(self, session_id: str) -> None:
        while True:
            answer = self._ask("GET", f"/session/{session_id}?wait={HELD_SECONDS}")
            if answer.status_code == 404 and "away" in self.end and answer.json()["reason"].startswith("silent for"):
                self.end = "too late"
                return
            assert answer.status_code == 200, answer.text
            seen = answer.json()
            self.positions.append(seen["position"])
            if seen["status"] == "active":
                break
            if self.hangs_up and self.dice.random() < 0.3:
                self.hangs_up = False
                self._hang_up(session_id)
                self.end = "away"
                if not self.returns:
                    return
                time.sleep(self.dice.uniform(0, AWAY_SECONDS))
            elif "Retry-After" in answer.headers:
                time.sleep(float(answer.headers["Retry-After"]) * self.dice.uniform(0.5, 1))
        answer = self._ask("DELETE", f"/session/{session_id}")
        assert answer.status_code == 204 or self.end == "away", answer.text
        self.end = "served"

    def _ask(self, method: str, path: str) -> requests.Response:
        """As clients do: who is told to come again later does."""
        while (answer := self.server.call(method, path)).status_code == 503:
            self.refusals += 1
            time.sleep(float(answer.headers["Retry-After"]))
        return answer

    def _hang_up(self, session_id: str) -> None:
        """Ask to be held and be gone: the socket is closed, nothing is given back."""
        with socket.create_connection(("127.0.0.1", self.server.port)) as connection:
            request = f"GET /session/{session_id}?wait={HELD_SECONDS} HTTP/1.1\r\nHost: lab\r\n\r\n"
            connection.sendall(request.encode()[: None if self.dice.random() < 0.5 else 40])


def gather(server: Server, size: int, dice: random.Random) -> list[Member]:
    """Let a crowd come, and wait until each of it has been served or has gone for good."""
    crowd = [Member(server, random.Random(dice.random())) for _ in range(size)]
    for member in crowd:
        member.thread.start()
    for member in crowd:
        member.thread.join()
    return crowd


def percentile(values: list[float], part: float) -> float:
    """The value that so big a part of all is not above."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]
