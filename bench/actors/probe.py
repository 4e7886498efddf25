"""Everyone else: asks a few things all the time, each on a connection of its own, until its input is closed.

python probe.py PACKAGE URL ACTIVE_SESSION

Prints milliseconds by what was asked.
"""

from __future__ import annotations

import collections
import http.client
import json
import select
import sys
import time
from urllib.parse import urlsplit

PAUSE_SECONDS = 0.02


class Probe:
    """Its calls and what they took."""

    def __init__(self, url: str) -> None:
        self.netloc = urlsplit(url).netloc
        self.times: dict[str, list[float]] = collections.defaultdict(list)

    def ask(self, what: str, method: str, path: str, headers: dict[str, str] | None = None) -> bytes:
        began = time.monotonic()
        connection = http.client.HTTPConnection(self.netloc, timeout=60)
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        if answer.status < 300:
            self.times[what].append((time.monotonic() - began) * 1000)
        else:
            self.times[f"{what}: {answer.status}"].append((time.monotonic() - began) * 1000)
        return body


def main() -> None:
    url, active = sys.argv[2], sys.argv[3]
    probe = Probe(url)
    while not select.select([sys.stdin], [], [], PAUSE_SECONDS)[0]:
        probe.ask("GET /healthz", "GET", "/healthz")
        probe.ask("POST /session/heartbeat", "POST", "/session/heartbeat", {"X-Session-ID": active})
        body = json.loads(probe.ask("POST /session", "POST", "/session"))
        if "session_id" in body:
            probe.ask("DELETE /session/ID", "DELETE", f"/session/{body['session_id']}")
    print(json.dumps(probe.times))


if __name__ == "__main__":
    main()
