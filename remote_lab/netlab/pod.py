"""One sandbox per lab: start it, find it again, run something inside, end it. Knows no netlab.

A pod is found by its management link, whose alias names its server and its lab, and by its uid range, which follows
from the link's number. Nothing is kept in files, so that a pod is found after any crash of the server.
"""

from __future__ import annotations

import base64
import json
import logging
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from ipaddress import IPv4Network
from pathlib import Path

from remote_lab.netlab import cgroups, firewall, management, processes
from remote_lab.netlab.lasting import Lasting
from remote_lab.netlab.limits import LabLimits
from remote_lab.netlab.netns.lab import NODE_TAG
from remote_lab.netlab.netns.pod_start import PodRequest

logger = logging.getLogger(__name__)

_PACKAGE = Path(__file__).parent
_PROJECT = _PACKAGE.parent.parent
_ENTER = _PACKAGE / "netns/enter.py"
_INSIDE = "opt/remote-lab"
COMMANDS_INSIDE = f"/{_INSIDE}/bin"
_START_SECONDS = 30
_SPARE_PROCESSES = 64
NAMELESS_SECONDS = 30.0
UNUSED_SECONDS = 5.0
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


class SameNumber(PodFailed):
    """A server in another network namespace took the same number at the same moment; with another one it may work."""


@dataclass(frozen=True)
class Pod:
    """A pod that was found."""

    number: int
    pid: int | None
    """Its PID 1, as the host numbers it; None when it is dead."""
    claim: management.Claim | None
    """Its management link; None when it is gone."""


class Pods:
    """The pods of one server, with a management link each.

    Args:
        owner: state tag of the server.
        pool: where management networks are taken from.
        limits: of each pod.
    """

    forwarded_ssh_port: int | None = None
    """Where the port of ssh is at the address of a device; None where it is that of ssh."""

    def __init__(self, owner: str, pool: IPv4Network, limits: LabLimits) -> None:
        self._owner = owner
        self._pool = pool
        self._limits = limits
        self._guards_host = False
        self._nameless: Lasting[management.Claim] = Lasting(NAMELESS_SECONDS)
        self._unused: Lasting[str] = Lasting(UNUSED_SECONDS)

    def guard_host(self) -> None:
        """Keep labs away from the host and from its routes, from now on.

        Raises:
            FirewallFailed, IpFailed: the host does not let us.
        """
        firewall.ensure()
        management.set_leak_guard(self._pool)
        self._guards_host = True

    def unguard_host(self) -> None:
        """Take away what keeps labs away, unless labs of any server are left."""
        management.remove_leak_guard(self._pool)
        if not management.claims():
            firewall.remove()
            if management.claims():  # another server has started a lab meanwhile
                firewall.ensure()

    def look_after_host(self) -> None:
        """Put back what others took away, as a firewall that is loaded anew flushes all rules; sweep what they left."""
        try:
            # A command that takes labs down after the server removed its rules does not miss them.
            if self._guards_host and firewall.ensure():
                logger.warning("The rules that keep labs away from this host were gone; they are in force again")
        except firewall.FirewallFailed:
            logger.exception("Labs may reach the services of this host")
        self._release_nameless()
        self._sweep()

    def claim(self, lab_id: str) -> management.ManagementNetwork:
        """Take a number for a lab.

        Raises:
            NoFreeNetwork, IpFailed, FirewallFailed, PodFailed: there is none.
        """
        management.set_leak_guard(self._pool)
        network = management.claim(self._pool, self._owner, lab_id)
        firewall.ensure()  # now, because nobody takes the rules away while there is a claim
        return network

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
            directory: seen at /lab, where everything in the pod starts; nothing is written to it.
            files: path inside -> text, beside our own package and commands.
        Returns:
            the host's pid of its PID 1.
        Raises:
            PodFailed: it is not there; the claim is still held.
            SameNumber: neither is there.
        """
        held = cgroups.find()
        most = {cgroups.MEMORY: self._limits.memory_bytes, cgroups.PROCESSES: self._limits.processes}
        inside = {name: (text.encode(), 0o644) for name, text in files.items()} | _own_files()
        request = PodRequest(
            tag=self._tag(lab_id),
            first_id=processes.first_id(network.number),
            id_count=processes.IDS_PER_POD,
            image=str(image),
            directory=str(directory),
            files={name: (base64.b64encode(content).decode(), mode) for name, (content, mode) in inside.items()},
            tmpfs_mib=self._limits.disk_mib,
            groups=cgroups.make(network.link, most),
            # Where a control group counts, it is the first to refuse, because it says so afterwards.
            processes=self._limits.processes + (_SPARE_PROCESSES if cgroups.PROCESSES in held else 0),
            process_mib=0 if cgroups.MEMORY in held else self._limits.memory_mib,
        )
        return self._launch(lab_id, network, request)

    def _launch(self, lab_id: str, network: management.ManagementNetwork, request: PodRequest) -> int:
        pid = _launch(request)
        if self._inits().get(network.number, [pid]) != [pid]:
            self._give_up(network, pid, lab_id)
            raise SameNumber(f"another sandbox on this host has the number {network.number} as well")
        management.give_to_pod(network, pid)
        return pid

    def reach(self, lab_id: str, addresses: Collection[str]) -> None:
        """Make the devices of a lab that boots reachable from this host; with a management link they are.

        Args:
            lab_id: of the lab.
            addresses: of its devices in the management network, with or without prefix length.
        Raises:
            PodFailed: they are not.
        """

    def find(self, lab_id: str) -> list[Pod]:
        """Return what is left of a lab's pod: usually one, none when nothing is left."""
        return [pod for found_id, pod in self._all() if found_id == lab_id]

    def lab_ids(self) -> set[str]:
        """Return the labs of which anything is left."""
        return {lab_id for lab_id, _ in self._all()}

    def node_names(self, lab_id: str) -> set[str]:
        """Return the nodes whose first process lives. A process can call itself that: its lab lies about itself."""
        numbers = {pod.number for pod in self.find(lab_id)}
        names = (processes.command_name(one.pid) for one in processes.pod_processes() if one.number in numbers)
        return {name.removeprefix(NODE_TAG) for name in names if name.startswith(NODE_TAG)}

    def _release_nameless(self) -> None:
        """Give back the numbers whose links say of no server for long: `ip` was killed before it could name them."""
        busy = {process.number for process in processes.pod_processes()}
        nameless = [claim for claim in management.claims() if not claim.owner and claim.number not in busy]
        for claim in self._nameless.of(nameless):
            logger.warning("Removing rlab%d, which names no lab", claim.number)
            management.release(claim)

    def exceeded(self, lab_id: str) -> list[str]:
        """Return which limits a lab has hit, as sentences, as far as its control groups tell; also when it is dead."""
        sentences = {
            cgroups.MEMORY: self._limits.memory_sentence,
            cgroups.PROCESSES: self._limits.processes_sentence,
        }
        return [
            sentences[controller]
            for pod in self.find(lab_id)
            for controller, count in cgroups.hits(management.link_name(pod.number)).items()
            if count
        ]

    def _sweep(self) -> None:
        """Remove control groups of pods that are gone, of all servers of this host.

        A server in another network namespace has links that are not seen here, and may be about to use its group.
        """
        cgroups.sweep(self._unused.of(cgroups.names() - self._names_in_use()))

    def _names_in_use(self) -> set[str]:
        return {management.link_name(claim.number) for claim in management.claims()}

    def _all(self) -> list[tuple[str, Pod]]:
        inits = self._inits()
        claims = {claim.number: claim for claim in management.claims()}
        found = [
            (claim.lab_id, Pod(claim.number, self._own(inits.get(claim.number, []), claim.lab_id), claim))
            for claim in claims.values()
            if claim.owner == self._owner
        ]
        # A pod that lost its link names its lab itself. It might lie, but only about itself: its number is its own.
        for number, pids in inits.items():
            for pid in pids if number not in claims else []:
                word, _, rest = processes.command_name(pid).partition(":")
                owner, _, lab_id = rest.partition(":")
                if word == _TAG_WORD and owner == self._owner:
                    found.append((lab_id, Pod(number, pid, None)))
        return found

    def _tag(self, lab_id: str) -> str:
        return f"{_TAG_WORD}:{self._owner}:{lab_id}"

    def _own(self, pids: Sequence[int], lab_id: str) -> int | None:
        """Return the PID 1 of a lab among those with its number: the only one, or the one that is called so."""
        if len(pids) > 1:
            pids = [pid for pid in pids if processes.command_name(pid) == self._tag(lab_id)]
        return pids[0] if pids else None

    @staticmethod
    def _inits() -> dict[int, list[int]]:
        """Return the PID 1 of all pods by their number."""
        inits: dict[int, list[int]] = {}
        for process in processes.pod_processes():
            if process.is_pid_1:
                inits.setdefault(process.number, []).append(process.pid)
        return inits

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
            pid, held = pod.pid, pod.claim is not None
            while True:
                if remaining := processes.kill_pod(pod.number, pid, holds_number=held, deadline=deadline):
                    return f"processes {', '.join(map(str, remaining))} of its sandbox do not end"
                pid = self._latecomer(pod.number, lab_id) if held else None
                if pid is None:
                    break
            cgroups.remove(management.link_name(pod.number))
            if pod.claim is not None:
                management.release(pod.claim)
        while left := [pod for pod in self.find(lab_id) if pod.claim is not None]:
            if time.monotonic() > deadline:
                return f"network interface rlab{left[0].number} is still there"
            time.sleep(0.01)
        return None

    def _latecomer(self, number: int, lab_id: str) -> int | None:
        """Return a PID 1 of the lab that was on its way in when its pod was looked for; strangers have other names."""
        for pid in self._inits().get(number, []):
            name = processes.command_name(pid)
            if name == self._tag(lab_id) or not name.startswith(f"{_TAG_WORD}:"):
                return pid
        return None

    def _give_up(self, network: management.ManagementNetwork, pid: int, lab_id: str) -> None:
        processes.kill_pod(network.number, pid, holds_number=False, deadline=time.monotonic() + _START_SECONDS)
        for claim in management.claims():
            if (claim.number, claim.owner, claim.lab_id) == (network.number, self._owner, lab_id):
                management.release(claim)


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
    return [sys.executable, "-I", "-S", str(_ENTER), str(pid), ":".join(cgroups.joins_of(pid)), *command]


def unknown(lab_ids: Collection[str], known: Collection[str]) -> list[str]:
    return sorted(set(lab_ids) - set(known))
