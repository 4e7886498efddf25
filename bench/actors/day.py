"""A day of traffic in fast motion: sessions that wait for their turn, take it, and end it at once.

python day.py PACKAGE URL SESSIONS STEPS THREADS SLOTS

Each thread keeps its connection, a bare socket: the server is to be busy, not its clients. Prints a line after each
step, and goes on when it is given one.
"""

from __future__ import annotations

import itertools
import json
import socket
import sys
import threading
import time
from urllib.parse import urlsplit

HOLD_SECONDS = 20
BUSY = (429, 503)
CALL_SECONDS = 60.0


class Line:
    """One connection, opened again when the server has closed it."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._socket: socket.socket | None = None

    def ask(self, method: str, path: str, expected: int) -> bytes:
        """One request; nothing that is asked here does harm when it is asked twice."""
        request = f"{method} {path} HTTP/1.1\r\nHost: lab\r\nContent-Length: 0\r\n\r\n".encode()
        for attempt in range(20):
            try:
                status, body = self._exchange(request)
            except (OSError, ValueError):
                self._close()
                time.sleep(0.02 * attempt)
                continue
            if status == expected or (attempt and method == "DELETE" and status == 404):
                return body
            assert status in BUSY, (method, path, status, body)
            time.sleep(0.1)
        raise ConnectionError(f"{method} {path}: no answer")

    def _exchange(self, request: bytes) -> tuple[int, bytes]:
        if self._socket is None:
            self._socket = socket.create_connection(self._address, CALL_SECONDS)
        self._socket.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive()
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        while len(body) < length:
            body += self._receive()
        if b"connection: close" in lines:
            self._close()
        return int(head.split(b" ", 2)[1]), body

    def _receive(self) -> bytes:
        assert self._socket is not None
        if not (data := self._socket.recv(65536)):
            raise ConnectionResetError("closed")
        return data

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None


def pass_through(line: Line, numbers: itertools.count[int], last: int, slots: int) -> None:
    """Take one session after the other through the queue, as long as there are any left."""
    while next(numbers) < last:
        session = json.loads(line.ask("POST", "/session", 201))
        path = f"/session/{session['session_id']}"
        is_active = session["position"] < slots
        while not is_active:
            is_active = json.loads(line.ask("GET", f"{path}?wait={HOLD_SECONDS}", 200))["status"] == "active"
        line.ask("DELETE", path, 204)


def main() -> None:
    url, sessions, steps, threads, slots = sys.argv[2], *map(int, sys.argv[3:7])
    parts = urlsplit(url)
    lines = [Line(str(parts.hostname), int(parts.port or 80)) for _ in range(threads)]
    failures: list[BaseException] = []

    def work(line: Line, numbers: itertools.count[int]) -> None:
        try:
            pass_through(line, numbers, sessions // steps, slots)
        except BaseException as error:
            failures.append(error)
            raise

    for step in range(steps):
        numbers: itertools.count[int] = itertools.count()
        began = time.monotonic()
        members = [threading.Thread(target=work, args=(line, numbers)) for line in lines]
        for member in members:
            member.start()
        for member in members:
            member.join()
        assert not failures, failures
        done = (step + 1) * (sessions // steps)
        print(json.dumps({"sessions": done, "seconds": time.monotonic() - began}), flush=True)
        if not sys.stdin.readline():
            return


if __name__ == "__main__":
    main()
