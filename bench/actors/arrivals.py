"""Clients that arrive together, each of which wants a lab of its own and is done at once.

python arrivals.py PACKAGE URL COUNT TOPOLOGY

Runs under the interpreter of whoever's client it is: standard library and that client only. Prints the seconds until
each was done.
"""

from __future__ import annotations

import importlib
import json
import sys
import threading
import time
from pathlib import Path


def main() -> None:
    package, url, count, topology = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
    make_client = importlib.import_module(package).RemoteLabClient
    gate = threading.Barrier(count + 1)
    done: list[float] = []

    def visit() -> None:
        gate.wait()
        client = make_client(url)
        client.acquire(topology, reuse=True)
        client.release()
        client.close()
        done.append(time.monotonic())

    threads = [threading.Thread(target=visit) for _ in range(count)]
    for thread in threads:
        thread.start()
    gate.wait()
    began = time.monotonic()
    for thread in threads:
        thread.join()
    assert len(done) == count, "not all were served"
    print(json.dumps([when - began for when in done]))


if __name__ == "__main__":
    main()
