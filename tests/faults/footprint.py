"""What a server has on this host, told by what it is: processes, links and folders; and how to hit some of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness import Server, list_labs, wait_until

from remote_lab.netlab import management, processes
from remote_lab.netlab.pod_site import state_tag
from remote_lab.netlab.spares import is_spare

NODE = "nodes: { h1: { device: linux } }\n"
"""The smallest real lab."""
ROUTER = "nodes: { r1: { device: frr } }\n"
HANGS = f"plugin: [ hang ]\n{NODE}"
PLUGIN = {"hang.py": "import time\nprint('the plugin hangs', flush=True)\ntime.sleep(600)\n"}
"""netlab runs it and gets no further."""


@dataclass(frozen=True)
class Footprint:
    """Of the labs of one server; its spare sandbox, which goes with it, is none."""

    links: frozenset[int]
    """Numbers of its pods' management links."""
    pids: frozenset[int]
    """Processes of pods with these numbers, of pods that say they are its own, and what works in its folders."""
    folders: frozenset[str]
    """Labs and uploads that have a folder."""

    @classmethod
    def of(cls, server: Server) -> Footprint:
        owner = state_tag(server.state_dir)
        claims = [claim for claim in management.claims() if claim.owner == owner]
        numbers = frozenset(claim.number for claim in claims if not is_spare(claim.lab_id))
        of_pods = {
            process.pid
            for process in processes.pod_processes()
            if process.number in numbers or f":{owner}:" in processes.command_name(process.pid)
        }
        folders = frozenset(path.name for path in (server.state_dir / "labs").glob("*"))
        return cls(numbers, frozenset(of_pods | working_below(server.state_dir / "labs")), folders)


NOTHING = Footprint(frozenset(), frozenset(), frozenset())


def wait_for_nothing(server: Server) -> None:
    """Everything that labs of this server had on the host goes; boot logs that are kept do not count."""
    wait_until(lambda: not list_labs(server.state_dir), "no lab has a folder")
    wait_until(
        lambda: (Footprint.of(server).links, Footprint.of(server).pids) == (frozenset(), frozenset()), "no trace"
    )


def working_below(folder: Path) -> set[int]:
    """The processes that work below a folder of the host."""
    found = set()
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and (process / "cwd").readlink().is_relative_to(folder):
                found.add(int(process.name))
        except OSError:
            continue  # ended meanwhile
    return found


def pod_of(server: Server) -> int:
    """The first process of the server's only pod."""
    numbers = Footprint.of(server).links
    [pid] = [one.pid for one in processes.pod_processes() if one.number in numbers and one.is_pid_1]
    return pid


def in_pod(server: Server, name: str) -> list[int]:
    """The processes of the server's only pod whose command line has this in it."""
    numbers = Footprint.of(server).links
    found = []
    for one in processes.pod_processes():
        try:
            if one.number in numbers and name.encode() in Path(f"/proc/{one.pid}/cmdline").read_bytes():
                found.append(one.pid)
        except OSError:
            continue
    return found


def worker_of(server: Server) -> int:
    """The process that serves; its parent only watches it."""
    assert server.process is not None
    [worker] = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return int(worker)


def kill_worker(server: Server) -> None:
    """The arbiter begins another one, which takes over."""
    before = worker_of(server)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: _workers(server) not in ([], [str(before)]), "another worker has begun")
    server.wait_until_it_answers()


def _workers(server: Server) -> list[str]:
    assert server.process is not None
    return Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()


def kill_both(server: Server) -> None:
    """Nothing is left to take over; a start follows."""
    server.kill()
    server.start()


def kill_arbiter(server: Server) -> None:
    """The worker notices by itself; a start follows at once."""
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    server.start()


def ip(*arguments: str) -> str:
    """What `ip` prints."""
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True).stdout


def links() -> set[str]:
    """The names of this host's interfaces."""
    return {link["ifname"] for link in json.loads(ip("-json", "link"))}
