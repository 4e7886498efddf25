"""Ends the session in front again and again, and measures when the next client's constructor returns.

python promotions.py PACKAGE URL COUNT LEAST_PAUSE_SECONDS MOST_PAUSE_SECONDS [TOPOLOGY]

Runs under the interpreter of whoever's client it is: standard library and that client only. Prints a list of
milliseconds.
"""

from __future__ import annotations

import http.client
import importlib
import json
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


def ask(url: str, method: str, path: str) -> tuple[int, bytes]:
    """One request on a connection of its own, with as little as possible between us and the server."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def main() -> None:
    package, url, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    least, most = float(sys.argv[4]), float(sys.argv[5])
    topology = Path(sys.argv[6]) if len(sys.argv) > 6 else None
    make_client = importlib.import_module(package).RemoteLabClient
    front = make_client(url)
    times = []
    for _ in range(count):
        if topology is not None:
            front.acquire(topology, reuse=True)
        following: list[tuple[Any, float]] = []

        def enter(following: list[tuple[Any, float]] = following) -> None:
            client = make_client(url)
            following.append((client, time.monotonic()))

        thread = threading.Thread(target=enter)
        thread.start()
        deadline = time.monotonic() + 30
        while json.loads(ask(url, "GET", "/debug/health")[1])["queue_length"] < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(random.uniform(least, most))
        assert ask(url, "DELETE", f"/session/{front.session_id}")[0] == 204
        answered = time.monotonic()
        thread.join()
        front.close()
        [(front, returned)] = following
        times.append((returned - answered) * 1000)
    front.close()
    print(json.dumps(times))


if __name__ == "__main__":
    main()
