"""netlab by hand in a sandbox that nobody serves: the floor of a boot.

python pod.py STATE_DIR TOPOLOGY COMMAND

Opens the same sandbox as a lab gets, runs plain `netlab COMMAND` (up or create) in it as an operator would, and prints
how many seconds that took; the sandbox is gone afterwards.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from ipaddress import IPv4Network
from pathlib import Path

from remote_lab.netlab.image import Images
from remote_lab.netlab.limits import lab_limits
from remote_lab.netlab.pod_site import PodSite
from remote_lab.netlab.site import LabPlace

POOL = IPv4Network("198.18.0.0/16")
IMAGE_DIR = Path(os.environ.get("REMOTE_LAB_IMAGE_DIR") or "/var/cache/remote-lab/images")
END_SECONDS = 30.0


def main() -> None:
    state_dir, topology, command = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    site = PodSite(images=Images(IMAGE_DIR), state_dir=state_dir, pool=POOL, limits=lab_limits())
    lab_id = str(uuid.uuid4())
    directory = state_dir / lab_id
    directory.mkdir(parents=True)
    shutil.copy(topology, directory)
    place = LabPlace(lab_id, 1, directory, topology.name, state_dir / f"{lab_id}.log")
    site.prepare()
    try:
        site.open(place)
        call = site.foreground_call(place, (command, *site.topology_arguments(place)))
        began = time.monotonic()
        done = subprocess.run(
            call.command, env=call.environment, cwd=call.directory, capture_output=True, text=True, check=False
        )
        seconds = time.monotonic() - began
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        print(json.dumps(seconds))
    finally:
        site.close(place, deadline=time.monotonic() + END_SECONDS)
        site.shutdown()


if __name__ == "__main__":
    main()
