"""Asks /healthz until its input is closed, in a process of its own; prints status and milliseconds of every call.

python prober.py HOST PORT
"""

from __future__ import annotations

import http.client
import json
import select
import sys
import time

PERIOD_SECONDS = 0.05


def main() -> None:
    """Each call has a connection of its own, as those of a load balancer have."""
    host, port = sys.argv[1], int(sys.argv[2])
    calls = []
    while not select.select([sys.stdin], [], [], PERIOD_SECONDS)[0]:
        began = time.monotonic()
        connection = http.client.HTTPConnection(host, port, timeout=60)
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
        connection.close()
        calls.append((status, (time.monotonic() - began) * 1000))
    print(json.dumps(calls))  # noqa: T201 - that is what it is for


if __name__ == "__main__":
    main()
