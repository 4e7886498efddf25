"""The pods of a server that runs as an ordinary user: `pod.Pods` with keepers in the place of management links.

A pod is found by its keeper, a process of the user that says whose it is, and its number is an address of 127.0.0.0/8
that the keeper has bound: both are the kernel's to give, and gone with the keeper, as the pod is.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from ipaddress import IPv4Address, IPv4Network
from itertools import islice
from pathlib import Path

from remote_lab.netlab import cgroups, management, processes
from remote_lab.netlab.limits import LabLimits
from remote_lab.netlab.netns.lab import NODE_TAG
from remote_lab.netlab.netns.pod_start import PodRequest
from remote_lab.netlab.pod import Pod, PodFailed, Pods
from remote_lab.netlab.rootless import channel, keepers

_OWN_IDS_FIRST = 0


class UserPods(Pods):
    """See `pod.Pods`. All pods of a user have the same ids, so that they share an image without idmapped mounts."""

    forwarded_ssh_port = channel.FORWARDED_PORTS[channel.SSH_PORT]

    def __init__(self, owner: str, pool: IPv4Network, limits: LabLimits) -> None:
        super().__init__(owner, pool, limits)
        self._channels: dict[str, channel.Channel] = {}
        """By lab, while it boots."""

    def guard_host(self) -> None:
        """Nothing to do: nothing of a lab has a way to the host."""

    def unguard_host(self) -> None:
        """See `guard_host`."""

    def claim(self, lab_id: str, *, leave_free: int = 0) -> management.ManagementNetwork:
        for network in islice(free_networks(self._pool), leave_free, None):
            number, address = network.number, channel.forward_address(network.host_address)
            try:
                self._channels[lab_id] = channel.start_keeper(address, keepers.tag(self._owner, lab_id, number))
            except channel.NumberTaken:
                continue
            except channel.KeeperFailed as error:
                raise PodFailed(f"the sandbox did not start: {error}") from error
            return network
        port = channel.FORWARDED_PORTS[channel.SSH_PORT]
        raise management.NoFreeNetwork(
            f"no free network in {self._pool}: each is in use by a lab, or something listens on port {port} of all "
            "addresses of this host, by which devices are reached (ss -ltnp shows what)"
        )

    def _launch(self, lab_id: str, network: management.ManagementNetwork, request: PodRequest) -> int:
        _let_others_read(Path(request.directory))
        own = replace(request, first_id=_OWN_IDS_FIRST, is_rootless=True)
        descriptors = [] if own.name_socket is None else [own.name_socket]
        self._ask(lab_id, {"do": "start", "request": asdict(own)}, descriptors)
        pid = next((pod.pid for pod in self.find(lab_id)), None)
        if pid is None:
            raise PodFailed("the sandbox did not start: it ended at once")
        return pid

    def _rename_claim(self, network: management.ManagementNetwork, spare_id: str, lab_id: str) -> None:
        self._ask(spare_id, {"do": "rename", "tag": keepers.tag(self._owner, lab_id, network.number)})
        self._channels[lab_id] = self._channels.pop(spare_id)

    def reach(self, lab_id: str, addresses: Collection[str]) -> None:
        """See `Pods.reach`. The keeper forwards to them, and goes on without us."""
        found = self.find(lab_id)
        if not found:
            raise PodFailed("the sandbox is gone")
        subnet = management.subnet_of(self._pool, found[0].number)
        try:
            devices = {IPv4Address(address.split("/")[0]) for address in addresses}
        except ValueError as error:
            raise PodFailed(str(error)) from error
        if len(devices) > management.MAX_NODES or not all(device in subnet for device in devices):
            raise PodFailed(f"its devices have management addresses that are not in {subnet}")
        self._ask(lab_id, {"do": "forward", "forwards": channel.forwards(sorted(devices))})
        self._channels.pop(lab_id).close()

    def _ask(self, lab_id: str, order: Mapping[str, object], descriptors: Sequence[int] = ()) -> None:
        try:
            self._channels[lab_id].ask(order, descriptors)
        except KeyError as error:
            raise PodFailed("the sandbox was ended") from error
        except channel.KeeperFailed as error:
            raise PodFailed(f"the sandbox did not start: {error}") from error

    def _all(self) -> list[tuple[str, Pod]]:
        own = [keeper for keeper in keepers.own_keepers() if keeper.owner == self._owner]
        pids = keepers.pods_of(own)
        return [(keeper.lab_id, Pod(keeper.number, pids.get(keeper.pid), _claim(keeper))) for keeper in own]

    def _is_as_seen(self, pod: Pod) -> bool:
        keeper = None if pod.pid is None else keepers.keeper_of(pod.pid)
        return keeper is not None and _claim(keeper) == pod.claim

    def node_names(self, lab_id: str) -> set[str]:
        pids = [pod.pid for pod in self._search(lab_id) if pod.pid is not None]
        return processes.names_after(NODE_TAG, keepers.nodes_of(pids))

    def end(self, lab_id: str, *, deadline: float) -> str | None:
        for keeper in keepers.own_keepers():
            if keeper.owner == self._owner and keeper.lab_id == lab_id:
                if not keepers.end(keeper, deadline=deadline):
                    return f"process {keeper.pid}, the keeper of its sandbox, does not end"
                cgroups.remove(management.link_name(keeper.number))
        if (open_channel := self._channels.pop(lab_id, None)) is not None:
            open_channel.close()
        return None

    def _release_nameless(self) -> None:
        """Nothing to do: a keeper has its name from its first moment."""

    def _names_in_use(self) -> set[str]:
        return {management.link_name(keeper.number) for keeper in keepers.own_keepers()}


def free_networks(pool: IPv4Network) -> Iterator[management.ManagementNetwork]:
    """Yield the networks whose addresses in 127.0.0.0/8 nobody has at this moment."""
    taken = {keeper.number for keeper in keepers.own_keepers()}
    for number in range(1, min(processes.MAX_PODS, 2 ** (24 - pool.prefixlen) - 1) + 1):
        network = management.ManagementNetwork(number, management.subnet_of(pool, number))
        if number not in taken and _is_free(channel.forward_address(network.host_address)):
            yield network


def _is_free(address: IPv4Address) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as test:
        try:
            test.bind((str(address), channel.FORWARDED_PORTS[channel.SSH_PORT]))
        except OSError:
            return False
    return True


def _claim(keeper: keepers.Keeper) -> management.Claim:
    return management.Claim(keeper.number, 0, keeper.owner, keeper.lab_id)


def _let_others_read(directory: Path) -> None:
    """The pod's root is neither this user nor of this user's groups; the folders above let nobody in but this user."""
    for folder, _, names in os.walk(directory):
        _add_permissions(Path(folder), 0o055)
        for name in names:
            _add_permissions(Path(folder, name), 0o044)


def _add_permissions(path: Path, bits: int) -> None:
    mode = path.lstat().st_mode
    if not stat.S_ISLNK(mode) and mode | bits != mode:
        path.chmod(stat.S_IMODE(mode) | bits)
