#!/usr/bin/env python3
"""Boots two routers on a lab host, waits until they are OSPF neighbors, prints what r1 says, and gives all back.

    REMOTE_LAB_URL=http://lab-host:8000 python3 examples/script.py

Needs `pip install remote-lab` and ssh.
"""

import logging
import subprocess
import sys
import time
from pathlib import Path

from remote_lab.client import RemoteLabClient

TOPOLOGY = Path(__file__).parent / "ospf-pair.yml"
CONVERGENCE_SECONDS = 60


def main():
    # What the client waits for: its place in the queue, the phases of the boot.
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    with RemoteLabClient(purpose="examples/script.py") as client:
        devices = client.acquire(TOPOLOGY, reuse=True)
        ssh = ["ssh", "-F", str(client.inventory("ssh_config")), devices[0].name]
        deadline = time.monotonic() + CONVERGENCE_SECONDS
        while True:
            show = [*ssh, "vtysh -c 'show ip ospf neighbor'"]
            neighbors = subprocess.run(show, capture_output=True, text=True, check=True).stdout
            if "Full/" in neighbors:
                break
            if time.monotonic() > deadline:
                sys.exit(f"{devices[0].name} has no full neighbor after {CONVERGENCE_SECONDS} s:\n{neighbors}")
            time.sleep(1)
    print(neighbors)


if __name__ == "__main__":
    main()
