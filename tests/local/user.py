"""A process that needs a server: obtains one for a run, boots a lab, says what it has, and ends as it is told.

Its argument is JSON: run_dir; topology, a text; watch_pid, itself when missing; ending, a word of `ENDINGS`.
"""

import json
import os
import sys
import time
from pathlib import Path

import requests

from remote_lab import local


def main():
    told = json.loads(sys.argv[1])
    run_dir = Path(told["run_dir"])
    said = []
    server = local.obtain(run_dir, told.get("watch_pid", os.getpid()), os.environ, said.append)
    has = {"url": server.url, "joined": server.joined, "provider": server.provider, "said": said}
    if "topology" in told:
        has["session_id"] = use(run_dir, server.url, told["topology"])
    sys.stdout.write(json.dumps(has) + "\n")
    sys.stdout.flush()
    ENDINGS[told.get("ending", "wait")](server)


def use(run_dir, url, topology):
    session_id = requests.post(f"{url}/session", timeout=30).json()["session_id"]
    local.note_session(run_dir, url, session_id)
    upload = {"topology": ("demo.yml", topology)}
    headers = {"X-Session-ID": session_id, "Prefer": "respond-async"}
    answer = requests.post(f"{url}/lab", headers=headers, files=upload, timeout=30)
    assert answer.status_code in (200, 202), answer.text
    return session_id


def wait(server):
    """Until it is ended from outside; Ctrl-C is an orderly end."""
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        server.stop()


ENDINGS = {
    "wait": wait,
    "stop": lambda server: server.stop(),
    "exit": lambda server: os._exit(7),
    "break": lambda server: sys.exit("a crash"),
    "leave": lambda server: None,
}

if __name__ == "__main__":
    main()
