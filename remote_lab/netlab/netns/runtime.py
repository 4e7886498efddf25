"""The command `netns-lab` in a pod: what netlab calls to start and stop nodes, and what the server asks about them.

Verbs: up, down, status, check, installed, exec NODE COMMAND..., collect JSON. All work in the lab's directory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import NoReturn

from remote_lab.netlab.netns import lab, links, node, nodes
from remote_lab.netlab.netns.tools import TOOL_SECONDS, output

INSTALLED = "netns-lab is installed"
FAILURES = (node.NodeError, links.LinkError, OSError, KeyError, ValueError)
"""What a verb fails with; the message is for whoever called it."""
_STOP_PROCESS = 'pkill -x "$0"; while pgrep -x "$0" > /dev/null; do sleep 0.01; done'


def main() -> None:
    verb, *arguments = sys.argv[1:] or ["help"]
    try:
        if verb == "exec":
            execute(arguments[0], arguments[1:] or ["bash", "-l"])
        if verb == "collect":
            from remote_lab.netlab.netns import collect

            collect.main(arguments[0])
            return
        verbs = {"up": nodes.up, "down": nodes.down, "status": status, "check": check, "installed": installed}
        if verb not in verbs:
            sys.exit(f"usage: netns-lab {'|'.join(verbs)} | exec NODE COMMAND... | collect JSON")
        verbs[verb]()
    except FAILURES as error:
        sys.exit(f"netns-lab {verb}: {error}")


def node_states() -> dict[str, str]:
    """Return per node of the plan `running`, or what is missing of it."""
    state, processes = lab.read_state(), lab.processes_by_namespace()
    found = {}
    for planned in lab.read_plan().nodes:
        known = state.get(planned.name)
        missing = lab.missing_services(planned.name, known, processes) if known else ["the node"]
        found[planned.name] = f"not running: {', '.join(missing)}" if missing else "running"
    return found


def status() -> None:
    """Print one line per node."""
    for name, text in node_states().items():
        print(f"{name}: {text}")


def check() -> None:
    """Print a JSON list of sentences about what does not run; empty when the whole lab runs."""
    print(json.dumps([f"node {name} is {text}" for name, text in node_states().items() if text != "running"]))


def installed() -> None:
    """Print a line, as netlab's provider probe expects of a tool that is there."""
    print(INSTALLED)


def execute(name: str, command: list[str]) -> NoReturn:
    """Become a command inside a node."""
    os.execvpe("nsenter", enter_command(name, *command), {**node.ENVIRONMENT, "TERM": os.environ.get("TERM", "dumb")})  # noqa: S606


def enter_command(name: str, *command: str) -> list[str]:
    """Return the argument list that runs a command inside a node, in the directory of its PID 1."""
    pid = lab.read_state()[name].pid
    inside = ["setpriv", "--bounding-set=-sys_admin,-sys_ptrace", "--", *command]
    return ["nsenter", "-t", str(pid), "-n", "-m", "-u", "-i", "-p", "-r", "-w", "--", *inside]


def write_file(name: str, path: str, text: str) -> None:
    """Write a file inside a node; its folder is made."""
    command = enter_command(name, "sh", "-c", 'mkdir -p "$(dirname "$0")" && cat > "$0"', path)
    output(*command, stdin=text)


def start_service(name: str, process: str, start: Sequence[str], reload: Sequence[str]) -> None:
    """Start a daemon inside a node, or, when it runs, make it read its files again; from now on it must live.

    Args:
        name: the node.
        process: what the kernel calls the daemon.
        start: goes into the background by itself.
        reload: empty when it can only be started anew.
    Raises:
        OSError: with the daemon's own words.
    """
    runs = process in lab.running_names(lab.read_state()[name])
    if runs and reload:
        _run_detached(enter_command(name, *reload))
        return
    if runs:
        output(*enter_command(name, "sh", "-c", _STOP_PROCESS, process))
    _run_detached(enter_command(name, *start))
    with lab.changing_state() as state:
        state[name].services = list(dict.fromkeys([*state[name].services, process]))


def _run_detached(command: Sequence[str]) -> None:
    # Into a file: a daemon that keeps its standard streams open would hold a pipe for ever.
    with tempfile.TemporaryFile() as said:
        result = subprocess.run(
            command,
            env=node.ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            timeout=TOOL_SECONDS,
            check=False,
        )
        said.seek(0)
        if result.returncode:
            raise OSError(said.read().decode(errors="replace").strip() or f"it ended with status {result.returncode}")
