"""What on this host belongs to one server, by what the kernel says of it: nobody else's labs are looked at."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness import Server, list_labs

from remote_lab.netlab.pod_site import state_tag
from remote_lab.netlab.processes import PodProcess, read_process
from remote_lab.netlab.spares import is_spare

SYSTEM_FOLDERS = ("/sys/fs/cgroup",)


@dataclass
class Census:
    """One server's share of the host."""

    server: Server
    numbers: set[int] = field(default_factory=set)
    """Of all its pods that were ever seen."""

    def links(self) -> dict[int, str]:
        """Its management links: number -> lab; that of its spare sandbox is left out."""
        found = {}
        for link in _links():
            word, _, rest = str(link.get("ifalias", "")).partition(":")
            owner, _, lab_id = rest.partition(":")
            is_its_own = word == "remote-lab" and owner == state_tag(self.server.state_dir)
            if is_its_own and not is_spare(lab_id):
                found[int(link["ifname"].removeprefix("rlab"))] = lab_id
        self.numbers |= set(found)
        return found

    def pods(self) -> dict[int, list[PodProcess]]:
        """The living processes of its pods."""
        everybody = [found for pid in _pids() if (found := read_process(pid))]
        numbers = self.links()
        return {number: [one for one in everybody if one.number == number] for number in numbers}

    def processes(self) -> list[str]:
        """What works in its labs' folders or has one of them mounted; the server itself is not meant."""
        labs = str(self.server.state_dir / "labs")
        return [f"process {pid} {_command(pid)}" for pid in _pids() if labs in _mounts(pid) or labs in _directory(pid)]

    def left(self) -> list[str]:
        """Everything that should not be there when it has no lab."""
        links = [f"link rlab{number} of {lab_id}" for number, lab_id in self.links().items()]
        files = [f"folder of {lab_id}" for lab_id in list_labs(self.server.state_dir)]
        mounts = [line for line in _mounts(os.getpid()).splitlines() if str(self.server.state_dir) in line]
        return links + self.processes() + files + mounts + self._named_by_number()

    def _named_by_number(self) -> list[str]:
        """Control groups and rules of numbers that were its own and are nobody's now.

        A group with a process in it is somebody's: of a server whose links are in another network namespace.
        """
        names = {f"rlab{number}" for number in self.numbers} - {link["ifname"] for link in _links()}
        groups = [
            f"control group {folder}/{name}"
            for root in SYSTEM_FOLDERS
            for folder, names_here, _ in os.walk(root)
            for name in names & set(names_here)
            if not _members(Path(folder, name))
        ]
        rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=False).stdout
        return groups + [f"rule for {name}" for name in names if f'"{name}"' in rules]

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of its database."""
        path = f"file:{self.server.state_dir}/remote-lab.sqlite3?mode=ro"
        with closing(sqlite3.connect(path, uri=True, timeout=30)) as database:
            return list(database.execute(sql))

    def labs_without_owner(self) -> list[str]:
        """Labs on the host that the database does not know as alive, or whose session has ended."""
        owned = self.query(
            "SELECT labs.id FROM labs JOIN sessions ON sessions.id = labs.session_id "
            "WHERE labs.state IN ('starting', 'running', 'stopping') AND (sessions.state = 'active' "
            "OR labs.state = 'stopping')"
        )
        return sorted({*self.links().values()} - {lab_id for (lab_id,) in owned})

    def overtaken(self) -> list[int]:
        """Tickets of sessions that became active before one that had come earlier."""
        order = [ticket for (ticket,) in self.query(
            "SELECT ticket FROM sessions WHERE activated_at IS NOT NULL ORDER BY activated_at, ticket"
        )]  # fmt: skip
        return [late for late, next_one in pairwise(order) if late > next_one]


def _links() -> list[dict[str, Any]]:
    answer = subprocess.run(["ip", "-json", "link", "show", "type", "veth"], capture_output=True, check=True).stdout
    return [link for link in json.loads(answer or b"[]") if str(link.get("ifname", "")).startswith("rlab")]


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _members(group: Path) -> str:
    with suppress(OSError):
        return (group / "cgroup.procs").read_text()
    return ""


def _mounts(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/mountinfo").read_text()
    return ""


def _directory(pid: int) -> str:
    with suppress(OSError):
        return str(Path(f"/proc/{pid}/cwd").readlink())
    return ""


def _command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")[:200]
    return ""
