"""Thousands of waiting clients on one thread, each as obedient as the real one: asks to be held, comes when told to.

python crowd.py PACKAGE URL COUNT SECONDS TURN_SECONDS

1. Takes COUNT places in the queue, and asks for each at once; nobody's turn ends meanwhile.
2. Prints a line and waits for one.
3. For SECONDS, who becomes active keeps the turn for TURN_SECONDS and ends it.
4. Prints what it saw: how late each noticed its turn, and how many requests it needed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from urllib.parse import urlsplit

HOLD_SECONDS = 25
OPENERS = 16
PAUSE_SECONDS_MIN = 0.05
LOOK_SECONDS = 0.01


class Crowd:
    """All of them; places in the queue are its own from `first` on."""

    def __init__(self, url: str, count: int, turn_seconds: float) -> None:
        self.host, self.port = urlsplit(url).hostname, urlsplit(url).port
        self.count = count
        self.turn_seconds = turn_seconds
        self.order: list[tuple[int, str]] = []
        self.ended: dict[str, float] = {}
        self.noticed: dict[str, float] = {}
        self.asked = self.refused = self.held = self.failed = 0
        self.go = asyncio.Event()
        self.members: list[asyncio.Task[None]] = []
        self.lag_seconds = 0.0

    async def ask(self, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own, as the client sends it; one that is not answered is sent again."""
        request = f"{method} {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        while True:
            self.asked += 1
            try:
                reader, writer = await asyncio.open_connection(self.host, self.port)
                try:
                    writer.write(request.encode())
                    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
                finally:
                    writer.close()
                status, *lines = head.decode("latin-1").split("\r\n")
                code = int(status.split()[1])
            except (OSError, IndexError, ValueError):
                self.failed += 1
                await asyncio.sleep(0.25)
                continue
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            if code not in (429, 503):
                return code, headers, body
            self.refused += 1
            await asyncio.sleep(float(headers.get("retry-after", 1)))

    async def open_all(self) -> None:
        remaining = iter(range(self.count))

        async def open_some() -> None:
            for _ in remaining:
                code, _, body = await self.ask("POST", "/session")
                assert code == 201, body
                answer = json.loads(body)
                self.order.append((answer["position"], answer["session_id"]))
                self.members.append(asyncio.create_task(self.stay(answer["session_id"])))

        await asyncio.gather(*(open_some() for _ in range(OPENERS)))
        self.order.sort()

    async def stay(self, session_id: str) -> None:
        path = f"/session/{session_id}"
        while True:
            began = time.monotonic()
            code, headers, body = await self.ask("GET", f"{path}?wait={HOLD_SECONDS}")
            assert code == 200, body
            if json.loads(body)["status"] == "active":
                break
            self.held += time.monotonic() - began > 0.5
            await asyncio.sleep(max(float(headers.get("retry-after", 0)), PAUSE_SECONDS_MIN))
        self.noticed[session_id] = time.monotonic()
        await self.go.wait()
        await asyncio.sleep(self.turn_seconds)
        code, _, _ = await self.ask("DELETE", path)
        assert code == 204, code
        self.ended[session_id] = time.monotonic()

    async def watch_lag(self, seconds: float) -> None:
        """Be there for so long, and find out how late this loop itself is at worst: it is part of what it measures."""
        deadline = time.monotonic() + seconds
        while (now := time.monotonic()) < deadline:
            await asyncio.sleep(LOOK_SECONDS)
            self.lag_seconds = max(self.lag_seconds, time.monotonic() - now - LOOK_SECONDS)

    def late_seconds(self) -> list[float]:
        """From the end of the turn in front to when the next in order knew of its own."""
        pairs = zip(self.order, self.order[1:], strict=False)
        return [
            self.noticed[after] - self.ended[before]
            for (_, before), (_, after) in pairs
            if before in self.ended and after in self.noticed
        ]


async def main() -> None:
    url, count, seconds, turn_seconds = sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5])
    crowd = Crowd(url, count, turn_seconds)
    began = time.monotonic()
    await crowd.open_all()
    opened = time.monotonic() - began
    print(json.dumps({"opened_per_second": count / opened}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    before = crowd.asked
    crowd.go.set()
    await crowd.watch_lag(seconds)
    broken = [repr(one.exception()) for one in crowd.members if one.done() and one.exception()]
    result = {
        "late": crowd.late_seconds(),
        "turns": len(crowd.ended),
        "asked_per_second": (crowd.asked - before) / seconds,
        "refused": crowd.refused,
        "held": crowd.held,
        "failed": crowd.failed,
        "lag": crowd.lag_seconds,
        "broken": broken[:5],
    }
    print(json.dumps(result), flush=True)
    for one in crowd.members:
        one.cancel()


if __name__ == "__main__":
    asyncio.run(main())
