"""`netns-lab collect`: runs commands in all nodes at once and prints what they said, as JSON, within limits.

Which commands is up to the server; it reads the answer as data of the lab, like everything from a pod.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from remote_lab.netlab.netns import node, runtime

_CHUNK_BYTES = 65536
_NODES_AT_ONCE = 16


@dataclass
class Limits:
    """What a collection may take; shared by all its threads."""

    deadline: float
    """By `time.monotonic()`."""
    output_bytes: int
    """Of one command."""
    left_bytes: int
    """Of all commands together, from now on."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, wanted_bytes: int) -> int:
        """Return how many of the bytes there is room for, which are used up then."""
        with self._lock:
            taken = min(wanted_bytes, self.left_bytes)
            self.left_bytes -= taken
            return taken


def main(argument: str) -> None:
    """Run what a JSON object asks for and print `{NODE: [[OUTPUT, OK], ...]}`, in the order of its commands.

    Args:
        argument: `commands`, a list of argument lists; `nodes`, per name the indexes of its commands; `seconds`,
            `output_bytes` and `total_bytes`, the limits.
    """
    wanted = json.loads(argument)
    limits = Limits(time.monotonic() + wanted["seconds"], wanted["output_bytes"], wanted["total_bytes"])
    commands = {name: [wanted["commands"][index] for index in indexes] for name, indexes in wanted["nodes"].items()}
    with ThreadPoolExecutor(_NODES_AT_ONCE) as threads:
        said = threads.map(lambda name: [ask(name, command, limits) for command in commands[name]], commands)
        print(json.dumps(dict(zip(commands, said, strict=True))))


def ask(name: str, command: Sequence[str], limits: Limits) -> tuple[str, bool]:
    """Return what a command says in a node, with its errors among it, and whether it succeeded in time."""
    seconds = limits.deadline - time.monotonic()
    if seconds <= 0:
        return "not asked: the others took all the time there is\n", False
    try:
        # A process group, which reaches through the pid namespace of the node: the child of nsenter has to end with it.
        process = subprocess.Popen(
            runtime.enter_command(name, *command),
            env=node.ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except (OSError, KeyError) as error:
        return f"not asked: {type(error).__name__}: {error}\n", False
    try:
        said, ended = _read(process, limits)
    finally:
        _end(process)
    text = said[: limits.take(len(said))].decode(errors="replace")
    if not ended:
        return f"{text}\n... ended here: it took too long, or said too much\n", False
    return text, process.returncode == 0


def _read(process: subprocess.Popen[bytes], limits: Limits) -> tuple[bytes, bool]:
    """Return what a process says until it ends, the deadline, or the limit; and whether it was the first of these."""
    said = bytearray()
    if process.stdout is None:
        return b"", False
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while len(said) <= limits.output_bytes:
            if not selector.select(max(limits.deadline - time.monotonic(), 0.0)):
                return bytes(said), False
            chunk = os.read(process.stdout.fileno(), _CHUNK_BYTES)
            if not chunk:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(limits.deadline - time.monotonic(), 0.0))
                    return bytes(said), True
                return bytes(said), False
            said += chunk
    return bytes(said[: limits.output_bytes]), False


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
