"""One sandbox per lab: start it, find it again, run something inside, end it. Knows no netlab.

A pod is found by its management link, whose alias names its server and its lab, and by its uid range, which follows
from the link's number. Nothing is kept in files, so that a pod is found after any crash of the server.
"""

from __future__ import annotations

import base64
import logging
import socket
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from remote_lab.netlab import cgroups, firewall, management, processes
from remote_lab.netlab.lasting import Lasting
from remote_lab.netlab.limits import LabLimits
from remote_lab.netlab.netns.lab import NODE_TAG
from remote_lab.netlab.netns.pod_start import PodRequest
from remote_lab.netlab.pod_launch import COMMANDS_INSIDE, START_SECONDS, PodFailed, launch, own_files

__all__ = ["COMMANDS_INSIDE", "Pod", "PodFailed", "Pods", "SameNumber", "enter_command", "unknown"]

logger = logging.getLogger(__name__)

_ENTER = Path(__file__).parent / "netns/enter.py"
_SPARE_PROCESSES = 64
NAMELESS_SECONDS = 30.0
UNUSED_SECONDS = 5.0
_TAG_WORD = "remote-lab-pod"


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
        self._seen: dict[str, Pod] = {}
        """The pods of labs as they were found last: where to look first, never an answer."""

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

    def claim(self, lab_id: str, *, leave_free: int = 0) -> management.ManagementNetwork:
        """Take a number for a lab, unless only so many are left.

        Raises:
            NoFreeNetwork, IpFailed, FirewallFailed, PodFailed: there is none.
        """
        management.set_leak_guard(self._pool)
        network = management.claim(self._pool, self._owner, lab_id, leave_free=leave_free)
        firewall.ensure()  # now, because nobody takes the rules away while there is a claim
        return network

    def start(
        self,
        lab_id: str,
        network: management.ManagementNetwork,
        image: Path,
        directory: Path,
        files: Mapping[str, str],
        *,
        name_socket: int | None = None,
    ) -> int:
        """Start a pod in a network that was claimed for it.

        Args:
            lab_id: of its lab.
            network: gives it its number.
            image: root file system.
            directory: seen at /lab, where everything in the pod starts; nothing is written to it.
            files: path inside -> text, beside our own package and commands.
            name_socket: descriptor by which `rename` names the pod; None: it is called after the lab at once.
        Returns:
            the host's pid of its PID 1.
        Raises:
            PodFailed: it is not there; the claim is still held.
            SameNumber: neither is there.
        """
        held = cgroups.find()
        most = {cgroups.MEMORY: self._limits.memory_bytes, cgroups.PROCESSES: self._limits.processes}
        inside = {name: (text.encode(), 0o644) for name, text in files.items()} | own_files()
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
            name_socket=name_socket,
        )
        return self._launch(lab_id, network, request)

    def _launch(self, lab_id: str, network: management.ManagementNetwork, request: PodRequest) -> int:
        pid = launch(request)
        if self._inits().get(network.number, [pid]) != [pid]:
            self._give_up(network, pid, lab_id)
            raise SameNumber(f"another sandbox on this host has the number {network.number} as well")
        management.give_to_pod(network, pid)
        return pid

    def rename(
        self,
        network: management.ManagementNetwork,
        pid: int,
        name_socket: socket.socket,
        spare_id: str,
        lab_id: str,
    ) -> None:
        """Give a pod that waits for its name to a lab; what keeps labs from the host is in force then.

        Args:
            network: of the pod.
            pid: its PID 1.
            name_socket: the other end of what `start` was given.
            spare_id: for which it was claimed and started.
            lab_id: of the lab.
        Raises:
            PodFailed, IpFailed, FirewallFailed, OSError: it has no such name, or not everywhere.
        """
        self._rename_claim(network, spare_id, lab_id)
        name_socket.settimeout(START_SECONDS)
        name_socket.sendall(f"{self._tag(lab_id)}\n".encode())
        name_socket.recv(1)  # nothing: the program that is PID 1 from now on does not have the socket
        if processes.command_name(pid) != self._tag(lab_id):
            raise PodFailed("the sandbox ended")

    def _rename_claim(self, network: management.ManagementNetwork, _spare_id: str, lab_id: str) -> None:
        management.set_leak_guard(self._pool)
        firewall.ensure()
        management.rename(network, self._owner, lab_id)

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
        if (seen := self._seen.pop(lab_id, None)) is not None and self._is_as_seen(seen):
            self._seen[lab_id] = seen
            return [seen]
        found = self._search(lab_id)
        if len(found) == 1 and found[0].pid is not None and found[0].claim is not None:
            self._seen[lab_id] = found[0]
        return found

    def _is_as_seen(self, pod: Pod) -> bool:
        """Return whether a pod is there as before, by what the kernel says of its process and its link now."""
        process = None if pod.pid is None else processes.read_process(pod.pid)
        is_there = process is not None and process.is_pid_1 and process.number == pod.number
        return is_there and management.claim_of(pod.number) == pod.claim

    def _search(self, lab_id: str) -> list[Pod]:
        return [pod for found_id, pod in self._all() if found_id == lab_id]

    def lab_ids(self) -> set[str]:
        """Return the labs of which anything is left."""
        found = {lab_id for lab_id, _ in self._all()}
        self._seen = {lab_id: pod for lab_id, pod in self._seen.copy().items() if lab_id in found}
        return found

    def missing_nodes(self, lab_id: str, names: Collection[str]) -> set[str]:
        """Return which of these nodes have no first process. Any process can say it is one: its lab lies to itself."""
        # Who is seen is there; only who is not needs a look at all processes of the host.
        near = (child for pod in self.find(lab_id) if pod.pid for child in processes.children(pod.pid))
        seen = processes.names_after(NODE_TAG, near)
        missing = set(names) - seen
        return missing - self.node_names(lab_id) if missing else missing

    def node_names(self, lab_id: str) -> set[str]:
        """Return the nodes whose first process lives, as `missing_nodes` sees them."""
        numbers = {pod.number for pod in self._search(lab_id)}
        pids = (one.pid for one in processes.pod_processes() if one.number in numbers)
        return processes.names_after(NODE_TAG, pids)

    def _release_nameless(self) -> None:
        """Give back the numbers whose links say of no server for long: `ip` was killed before it could name them."""
        nameless = [claim for claim in management.claims() if not claim.owner]
        busy = {process.number for process in processes.pod_processes()} if nameless else ()
        nameless = [claim for claim in nameless if claim.number not in busy]
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
        self._seen.pop(lab_id, None)
        for pod in self._search(lab_id):
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
        while left := [pod for pod in self._search(lab_id) if pod.claim is not None]:
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
        processes.kill_pod(network.number, pid, holds_number=False, deadline=time.monotonic() + START_SECONDS)
        for claim in management.claims():
            if (claim.number, claim.owner, claim.lab_id) == (network.number, self._owner, lab_id):
                management.release(claim)


def enter_command(pid: int, command: Sequence[str]) -> list[str]:
    """Return the argument list that runs a command in a pod as its root, in the directory of the lab.

    Args:
        pid: its PID 1.
        command: absolute path inside, and arguments.
    """
    return [sys.executable, "-I", "-S", str(_ENTER), str(pid), ":".join(cgroups.joins_of(pid)), *command]


def unknown(lab_ids: Collection[str], known: Collection[str]) -> list[str]:
    return sorted(set(lab_ids) - set(known))
