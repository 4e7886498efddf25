"""A client that wants one lab and puts up with everything a server may do, except with losing its session."""

from __future__ import annotations

import random
import threading
import time
import uuid
from typing import Any

import requests
from harness import Server

BETWEEN_SECONDS = 0.2
VISIT_SECONDS = 90.0
LAB_GONE = {"lab_boot_failed", "lab_boot_cancelled", "lab_busy", "server_busy", "lab_not_found"}
"""What an acquire, or a use of a lab, may hear when somebody has broken the lab; it asks again."""


class Visitor(threading.Thread):
    """One visit: open, wait, acquire, use, release, leave; or vanish somewhere in between."""

    def __init__(self, server: Server, dice: random.Random, topology: str) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._topology = topology
        self._vanishes = dice.random() < 0.1
        self._uses = dice.randrange(1, 3)
        self._pause_seconds = dice.uniform(0, 0.5)
        self._releases = dice.random() < 0.7
        self._deadline = time.monotonic() + VISIT_SECONDS
        self.session_id = ""
        self.story: list[str] = []
        self.problem: str | None = None

    def run(self) -> None:
        time.sleep(self._pause_seconds)
        try:
            self._visit()
        except Exception as error:  # noqa: BLE001 - whatever it is, the round is told
            self.problem = f"{type(error).__name__}: {error}"

    def _visit(self) -> None:
        self.session_id = self._insist("POST", "/session", {201})["session_id"]
        while self._insist("GET", f"/session/{self.session_id}?wait=2", {200})["status"] != "active":
            pass
        self.story.append("active")
        for _ in range(self._uses):
            self._acquire()
            time.sleep(self._pause_seconds)
            self._use()
            if self._vanishes:
                return
        if self._releases:
            self._insist("POST", "/lab/release", {204}, tolerated={"lab_not_found"})
        self._insist("DELETE", f"/session/{self.session_id}", {204}, tolerated={"session_not_found"})
        self.story.append("left")

    def _acquire(self) -> None:
        name = uuid.uuid4().hex
        while True:
            files = [("topology", ("soak.yml", self._topology))]
            answer = self._insist("POST", "/lab", {200}, tolerated=LAB_GONE, name=name, files=files)
            if "devices" in answer:
                self.story.append("again" if answer["reused"] else "booted")
                return
            self.story.append(answer["code"])

    def _use(self) -> None:
        """It is there, or it was broken and the server knows."""
        lab = self._insist("GET", "/lab/devices", {200}, tolerated={"lab_not_found"})
        self.story.append("used" if isinstance(lab, list) else "broken")
        self._insist("POST", "/session/heartbeat", {204})

    def _insist(
        self, method: str, path: str, wanted: set[int], tolerated: set[str] | None = None, name: str = "", **more: Any
    ) -> Any:
        """Ask until there is an answer that says something; a connection that breaks says nothing."""
        headers = {"X-Acquire-ID": name} if name else {}
        tries = 0
        while time.monotonic() < self._deadline:
            tries += 1
            try:
                answer = self._server.call(method, path, self.session_id, headers=headers, timeout=30, **more)
            except requests.RequestException as error:
                self.story.append(type(error).__name__)
                time.sleep(BETWEEN_SECONDS)
                continue
            said = answer.json() if answer.content else {}
            if answer.status_code in wanted:
                return said
            # Gone already is as good as given back, when an earlier try was cut off; the reason says who did it.
            own_end = said.get("reason") == "its owner ended it" and tries > 1
            if said.get("code") == "session_not_found" and not own_end:
                raise AssertionError(f"lost its session: {method} {path}: {answer.status_code} {answer.text}")
            if said.get("code") in (tolerated or set()):
                time.sleep(BETWEEN_SECONDS)
                return said
            raise AssertionError(f"{method} {path}: {answer.status_code} {answer.text}")
        raise AssertionError(f"{method} {path}: no answer that helps")
