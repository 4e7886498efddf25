"""One sandbox per lab: start it, find it again, run something inside, end it. Knows no netlab.

A pod is found by its management link, whose alias names its server and its lab, and by its uid range, which follows
from the link's number. Nothing is kept in files, so that a pod is found after any crash of the server.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from ipaddress import IPv4Network
from pathlib import Path

from remote_lab.netlab import management, processes
from remote_lab.netlab.netns.pod_start import PodRequest

_PACKAGE = Path(__file__).parent
_PROJECT = _PACKAGE.parent.parent
_INSIDE = "opt/remote-lab"
COMMANDS_INSIDE = f"/{_INSIDE}/bin"
_TMPFS_MIB = 1024
_START_SECONDS = 30
_TAG_WORD = "remote-lab-pod"
_LAUNCH = "import sys; sys.path.insert(0, sys.argv[1]); from remote_lab.netlab.netns.pod_start import main; main()"
_COMMANDS = {"netlab": "netlab_command", "netns-lab": "runtime"}
_SCRIPT = """#!/usr/bin/python3 -I
import sys
sys.path[:0] = ["/opt/remote-lab", "/opt/netlab"]
from remote_lab.netlab.netns.{module} import main
main()
"""


class PodFailed(Exception):
    """A pod did not start; the message says why."""


@dataclass(frozen=True)
class Pod:
    """A pod that was found."""

    number: int
    pid: int | None
    """Its PID 1, as the host numbers it; None when it is dead."""
    claim: management.Claim | None
    """Its management link; None when it is gone."""


class Pods:
    """The pods of one server.

    Args:
        owner: state tag of the server.
        pool: where management networks are taken from.
    """

    def __init__(self, owner: str, pool: IPv4Network) -> None:
        self._owner = owner
        self._pool = pool

    def claim(self, lab_id: str) -> management.ManagementNetwork:
        return management.claim(self._pool, self._owner, lab_id)

    def start(
        self,
        lab_id: str,
        network: management.ManagementNetwork,
        image: Path,
        directory: Path,
        files: Mapping[str, str],
    ) -> int:
        """Start a pod in a network that was claimed for it.

        Args:
            lab_id: of its lab.
            network: gives it its number.
            image: root file system.
            directory: bound at /lab, where everything in the pod starts.
            files: path inside -> text, beside our own package and commands.
        Returns:
            the host's pid of its PID 1.
        Raises:
            PodFailed: it is not there; the claim is still held.
        """
        inside = {name: (text.encode(), 0o644) for name, text in files.items()} | _own_files()
        request = PodRequest(
            tag=f"{_TAG_WORD}:{self._owner}:{lab_id}",
            first_id=processes.first_id(network.number),
            id_count=processes.IDS_PER_POD,
            image=str(image),
            directory=str(directory),
            files={name: (base64.b64encode(content).decode(), mode) for name, (content, mode) in inside.items()},
            tmpfs_mib=_TMPFS_MIB,
        )
        pid = _launch(request)
        management.give_to_pod(network, pid)
        return pid

    def find(self, lab_id: str) -> list[Pod]:
        """Return what is left of a lab's pod: usually one, none when nothing is left."""
        return [pod for found_id, pod in self._all() if found_id == lab_id]

    def lab_ids(self) -> set[str]:
        """Return the labs of which anything is left."""
        return {lab_id for lab_id, _ in self._all()}

    def _all(self) -> list[tuple[str, Pod]]:
        inits = {process.number: process.pid for process in processes.pod_processes() if process.is_pid_1}
        claims = {claim.number: claim for claim in management.claims()}
        found = [
            (claim.lab_id, Pod(claim.number, inits.get(claim.number), claim))
            for claim in claims.values()
            if claim.owner == self._owner
        ]
        # A pod that lost its link names its lab itself. It might lie, but only about itself: its number is its own.
        for number, pid in inits.items():
            word, _, rest = processes.command_name(pid).partition(":")
            owner, _, lab_id = rest.partition(":")
            if number not in claims and word == _TAG_WORD and owner == self._owner:
                found.append((lab_id, Pod(number, pid, None)))
        return found

    def end(self, lab_id: str, *, deadline: float) -> str | None:
        """End a lab's pod and give its number back; does nothing when there is none.

        Args:
            lab_id: of the lab.
            deadline: by `time.monotonic()`.
        Returns:
            what is still there at the deadline, as a sentence, otherwise None.
        """
        for pod in self.find(lab_id):
            # The number stays claimed until nobody has its uids any more.
            if remaining := processes.kill_pod(pod.number, deadline=deadline):
                return f"processes {', '.join(map(str, remaining))} of its sandbox do not end"
            if pod.claim is not None:
                management.release(pod.claim)
        while left := [pod for pod in self.find(lab_id) if pod.claim is not None]:
            if time.monotonic() > deadline:
                return f"network interface rlab{left[0].number} is still there"
            time.sleep(0.01)
        return None


def _launch(request: PodRequest) -> int:
    # -I and an environment of its own: nothing of the server's reaches the pod, whose PID 1 inherits from this process.
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _LAUNCH, str(_PROJECT)],
        input=json.dumps(asdict(request)),
        capture_output=True,
        text=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        cwd="/",
        start_new_session=True,
        timeout=_START_SECONDS,
        check=False,
    )
    try:
        answer = json.loads(result.stdout)
    except ValueError as error:
        raise PodFailed(f"the sandbox did not start: {result.stderr.strip()[-2000:]}") from error
    if "error" in answer:
        raise PodFailed(f"the sandbox did not start: {answer['error']}")
    return int(answer["pid"])


def _own_files() -> dict[str, tuple[bytes, int]]:
    """Return our package for the inside of a pod: path -> bytes and permission bits."""
    package = {
        f"{_INSIDE}/{path.relative_to(_PROJECT)}": (path.read_bytes(), 0o644)
        for path in (_PACKAGE.parent / "__init__.py", _PACKAGE / "__init__.py", *(_PACKAGE / "netns").glob("*.py"))
    }
    commands = {
        f"{COMMANDS_INSIDE}/{name}": (_SCRIPT.format(module=module).encode(), 0o755)
        for name, module in _COMMANDS.items()
    }
    template = {"etc/netlab/netns/netns.j2": ((_PACKAGE / "netns/netns.j2").read_bytes(), 0o644)}
    return package | commands | template


def enter_command(pid: int, command: Sequence[str]) -> list[str]:
    """Return the argument list that runs a command in a pod as its root, in the directory of the lab.

    Args:
        pid: its PID 1.
        command: absolute path inside, and arguments.
    """
    namespaces = ("-U", "-n", "-m", "-u", "-i", "-p")
    return ["nsenter", "-t", str(pid), *namespaces, "-r", "-w", "-S", "0", "-G", "0", "--", *command]


def unknown(lab_ids: Collection[str], known: Collection[str]) -> list[str]:
    return sorted(set(lab_ids) - set(known))
