"""The process that starts a pod, and what of ours it puts inside. Finding and ending pods is `pod.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from remote_lab.netlab.netns.pod_start import PodRequest

_PACKAGE = Path(__file__).parent
_PROJECT = _PACKAGE.parent.parent
_INSIDE = "opt/remote-lab"
COMMANDS_INSIDE = f"/{_INSIDE}/bin"
START_SECONDS = 30
_LAUNCH = "import sys; sys.path.insert(0, sys.argv[1]); from remote_lab.netlab.netns.pod_start import main; main()"
_COMMANDS = {"netlab": "netlab_command", "netlab-boot": "zygote", "netns-lab": "runtime"}
_SCRIPT = """#!/usr/bin/python3 -I
import sys
sys.path[:0] = ["/opt/remote-lab", "/opt/netlab"]
from remote_lab.netlab.netns.{module} import main
main()
"""


class PodFailed(Exception):
    """A pod did not start; the message says why."""


def launch(request: PodRequest) -> int:
    """Start a pod and return the host's pid of its PID 1.

    Raises:
        PodFailed: it is not there.
    """
    # -I and an environment of its own: nothing of the server's reaches the pod, whose PID 1 inherits from this process.
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _LAUNCH, str(_PROJECT)],
        input=json.dumps(asdict(request)),
        capture_output=True,
        text=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        cwd="/",
        start_new_session=True,
        timeout=START_SECONDS,
        check=False,
        pass_fds=() if request.name_socket is None else (request.name_socket,),
    )
    try:
        answer = json.loads(result.stdout)
    except ValueError as error:
        raise PodFailed(f"the sandbox did not start: {result.stderr.strip()[-2000:]}") from error
    if "error" in answer:
        raise PodFailed(f"the sandbox did not start: {answer['error']}")
    return int(answer["pid"])


def own_files() -> dict[str, tuple[bytes, int]]:
    """Return our package for the inside of a pod: path -> bytes and permission bits."""
    package = {
        f"{_INSIDE}/{path.relative_to(_PROJECT)}": (path.read_bytes(), 0o644)
        for path in (_PACKAGE.parent / "__init__.py", _PACKAGE / "__init__.py", *(_PACKAGE / "netns").glob("*.py"))
    }
    commands = {
        f"{COMMANDS_INSIDE}/{name}": (_SCRIPT.format(module=module).encode(), 0o755)
        for name, module in _COMMANDS.items()
    }
    return package | commands
