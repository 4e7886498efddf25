"""The command `netns-lab` in a pod: what netlab calls to start and stop nodes, and what the server asks about them.

Verbs: up, down, status, check, installed, exec NODE COMMAND..., collect JSON. All work in the lab's directory.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from remote_lab.netlab.netns import lab, links, node

_PROCESS_END_SECONDS = 10.0
_TOOL_SECONDS = 30
INSTALLED = "netns-lab is installed"
_KEYS = Path("/run/netns-keys")
_LOGIN_KEY = _KEYS / lab.LOGIN_KEY.name
_PUBLIC_KEY = _LOGIN_KEY.with_suffix(".pub")
_HOST_KEY = _KEYS / "host_key"
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
        verbs = {"up": up, "down": down, "status": status, "check": check, "installed": installed}
        if verb not in verbs:
            sys.exit(f"usage: netns-lab {'|'.join(verbs)} | exec NODE COMMAND... | collect JSON")
        verbs[verb]()
    except (node.NodeError, links.LinkError, OSError, KeyError, ValueError) as error:
        sys.exit(f"netns-lab {verb}: {error}")


def up() -> None:
    """Start all nodes of the plan and join them; on failure none is left."""
    plan = lab.read_plan()
    down()
    credentials = make_credentials(plan.password)
    state: dict[str, lab.NodeState] = {}
    try:
        starting = [node.start(planned, plan, credentials) for planned in plan.nodes]
        for started in starting:
            started.settle()
            state[started.node.name] = lab.NodeState(started.pid)
        lab.write_state(state)
        links.connect(plan, {name: known.pid for name, known in state.items()})
        for started in starting:
            started.finish()
        for started in _as_they_come_up(starting):
            state[started.node.name] = started.wait()
            # The server reads this line to say how far the boot is.
            print(lab.up_line(started.node.name), flush=True)
        lab.write_state(state)
    except BaseException:
        lab.write_state(state)
        down()
        raise
    print(f"{len(state)} nodes run", flush=True)


def _as_they_come_up(starting: Sequence[node.StartingNode]) -> Iterator[node.StartingNode]:
    """Yield each node when it has something to say: that its services answer, or why they do not."""
    with selectors.DefaultSelector() as selector:
        for started in starting:
            selector.register(started, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                selector.unregister(key.fileobj)
                if isinstance(key.fileobj, node.StartingNode):
                    yield key.fileobj


def down() -> None:
    """End all nodes; ending a node's PID 1 ends its processes, mounts and links."""
    for known in lab.read_state().values():
        try:
            os.kill(known.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    deadline = time.monotonic() + _PROCESS_END_SECONDS
    while any(Path(f"/proc/{known.pid}").exists() for known in lab.read_state().values()):
        if time.monotonic() > deadline:
            raise OSError(f"nodes still run after {_PROCESS_END_SECONDS:.0f} s")
        time.sleep(0.005)
    _delete_links_here()
    lab.STATE.unlink(missing_ok=True)


def _delete_links_here() -> None:
    """Delete what `up` made in this namespace; the kernel's own clean-up of veths can lag far behind."""
    present = sorted(os.listdir("/sys/class/net"))
    names = [name for name in present if name not in ("lo", links.UPLINK) and _is_bridge_or_veth(name)]
    commands = "".join(f"link delete {name}\n" for name in names)
    subprocess.run(
        ["/usr/sbin/ip", "-force", "-batch", "-"],
        input=commands,
        text=True,
        stderr=subprocess.DEVNULL,
        timeout=_TOOL_SECONDS,
        check=False,
    )


def _is_bridge_or_veth(name: str) -> bool:
    # Virtual devices that modules of the kernel create by themselves (`tunl0`, `ifb0`) cannot be deleted.
    return name == links.MANAGEMENT_BRIDGE or name.startswith("lan") or name[:1] in "mlsx"


def make_keys() -> None:
    """Make the keys of this lab, once: a login key, and one host key for all nodes."""
    partial = _KEYS.with_suffix(".new")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    _output("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(partial / _LOGIN_KEY.name))
    _output("dropbearkey", "-t", "ed25519", "-f", str(partial / _HOST_KEY.name))
    partial.rename(_KEYS)


def make_credentials(password: str) -> node.Credentials:
    """Return what lets a user into the nodes; the login key is put into `netns_files/`."""
    if not _KEYS.exists():
        make_keys()
    lab.KEY_DIRECTORY.mkdir(exist_ok=True)
    for key in (_LOGIN_KEY, _PUBLIC_KEY):
        copy = lab.KEY_DIRECTORY / key.name
        copy.unlink(missing_ok=True)
        shutil.copy(key, copy)
    return node.Credentials(
        password_hash=_output("openssl", "passwd", "-6", "-stdin", stdin=password).strip(),
        public_key=_PUBLIC_KEY.read_text().strip(),
        host_key=_HOST_KEY.read_bytes(),
    )


def _output(*command: str, stdin: str | None = None) -> str:
    result = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=_TOOL_SECONDS, check=False)
    if result.returncode:
        raise OSError(f"{command[0]}: {result.stderr.strip()}")
    return result.stdout


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
    _output(*command, stdin=text)


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
        _output(*enter_command(name, "sh", "-c", _STOP_PROCESS, process))
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
            timeout=_TOOL_SECONDS,
            check=False,
        )
        said.seek(0)
        if result.returncode:
            raise OSError(said.read().decode(errors="replace").strip() or f"it ended with status {result.returncode}")
