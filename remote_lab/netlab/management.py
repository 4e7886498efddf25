"""Management networks: the number of a pod, its veth to the host, and the route that keeps dead labs' traffic here.

A number is claimed by creating the interface `rlabN`, so that the kernel decides between servers that want the same
one. The interface carries, in its alias, whose it is; nothing in a pod can change that.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, TypeVar

from remote_lab.netlab import rtnetlink
from remote_lab.netlab.netns.links import UPLINK
from remote_lab.netlab.processes import MAX_PODS, pod_processes

Found = TypeVar("Found")

_LINK_PREFIX = "rlab"
_ALIAS_WORD = "remote-lab"
_SUBNET_BITS = 24
MAX_NODES = 256
"""No management network has room for more."""
_LINK_SETTINGS = {
    # Answer for no other address of the host, and to nobody outside the network: a lab cannot fill the neighbor table.
    "ipv4/conf/*/arp_ignore": "2",
    "ipv4/conf/*/rp_filter": "1",
    "ipv4/conf/*/accept_redirects": "0",
    "ipv6/conf/*/disable_ipv6": "1",
}
_GUARD_METRIC = "4294967294"
_IP_SECONDS = 30


class NoFreeNetwork(Exception):
    """Every network of the pool is taken or overlaps with one that the host uses; the message names the pool."""


class IpFailed(Exception):
    """`ip` refused something; the message is its own."""


@dataclass(frozen=True)
class ManagementNetwork:
    """The network between the host and one pod; also the pod's number on this host."""

    number: int
    subnet: IPv4Network

    @property
    def link(self) -> str:
        return link_name(self.number)

    @property
    def host_address(self) -> IPv4Address:
        return self.subnet.broadcast_address - 1

    @property
    def pod_address(self) -> IPv4Address:
        return self.subnet.broadcast_address - 2


@dataclass(frozen=True)
class Claim:
    """A `rlabN` on this host."""

    number: int
    index: int
    """Of the interface; unlike its name it is not given to another one soon."""
    owner: str
    """State tag of the server that made it, empty when it never got that far."""
    lab_id: str


def link_name(number: int) -> str:
    """Return what the management link of pod `number` is called."""
    return f"{_LINK_PREFIX}{number}"


def claim(pool: IPv4Network, owner: str, lab_id: str, *, leave_free: int = 0) -> ManagementNetwork:
    """Take a free number and bring up the host's end of its network.

    Args:
        pool: where networks of 256 addresses are taken from.
        owner: state tag of this server.
        lab_id: of the lab.
        leave_free: how many others must be free.
    Raises:
        NoFreeNetwork: there is none, or too few.
        IpFailed: the host cannot make the interface.
    """
    for number in free_numbers(pool)[leave_free:]:
        network = ManagementNetwork(number, subnet_of(pool, number))
        if _create_link(network, owner, lab_id):
            return network
    raise NoFreeNetwork(f"no free network in {pool}: each is in use by a lab or overlaps with a network of this host")


def free_numbers(pool: IPv4Network) -> list[int]:
    """Return the numbers whose networks nobody uses at this moment.

    Raises:
        IpFailed, OSError: `ip` does not answer.
    """
    used = _used_networks(pool)
    busy = {process.number for process in pod_processes()} | {claim.number for claim in claims()}
    subnets = list(enumerate(pool.subnets(new_prefix=_SUBNET_BITS)))[1 : MAX_PODS + 1]
    return [
        number
        for number, subnet in subnets
        if number not in busy and not any(subnet.overlaps(network) for network in used)
    ]


def _create_link(network: ManagementNetwork, owner: str, lab_id: str) -> bool:
    """Return False when somebody else was faster."""
    link, peer = network.link, f"{network.link}p"
    # addrgenmode none: no link-local address by which a lab could reach the host.
    commands = (
        f"link add {link} type veth peer name {peer}",
        f"link set {link} alias {_ALIAS_WORD}:{owner}:{lab_id}",
        f"link set {link} addrgenmode none",
        f"link set {peer} addrgenmode none",
        f"address add {network.host_address}/{network.subnet.prefixlen} dev {link}",
    )
    result = _ip("-batch", "-", stdin="\n".join(commands) + "\n")
    if result.returncode == 0:
        _harden(link)
        _ip_or_raise("link", "set", link, "up")
        return True
    if "File exists" in result.stderr:
        return False
    raise IpFailed(f"cannot make {link}: {result.stderr.strip()}")


def _harden(link: str) -> None:
    for name, value in _LINK_SETTINGS.items():
        # Where /proc/sys is read-only, as in some containers, the firewall does without.
        with suppress(OSError):
            Path("/proc/sys/net", name.replace("*", link)).write_text(value)


def rename(network: ManagementNetwork, owner: str, lab_id: str) -> None:
    """Say that a claim is for another lab."""
    _ip_or_raise("link", "set", network.link, "alias", f"{_ALIAS_WORD}:{owner}:{lab_id}")


def give_to_pod(network: ManagementNetwork, pid: int) -> None:
    """Move the pod's end of the network into the network namespace of a process."""
    _ip_or_raise("link", "set", f"{network.link}p", "netns", str(pid), "name", UPLINK)


def claims() -> list[Claim]:
    """Return all claims on this host, of all servers."""
    return [claim for link in _looked(rtnetlink.veths) if (claim := _claim(link)) is not None]


def claim_of(number: int) -> Claim | None:
    """Return the claim on a number; None when nobody has it."""
    link = _looked(lambda: rtnetlink.veth(link_name(number)))
    return None if link is None else _claim(link)


def _looked(look: Callable[[], Found]) -> Found:
    try:
        return look()
    except OSError as error:
        raise IpFailed(f"the network interfaces of this host cannot be seen: {error}") from error


def _claim(link: rtnetlink.Veth) -> Claim | None:
    number = link.name.removeprefix(_LINK_PREFIX)
    if number == link.name or not number.isdigit():
        return None
    word, _, rest = link.alias.partition(":")
    owner, _, lab_id = rest.partition(":") if word == _ALIAS_WORD else ("", "", "")
    return Claim(int(number), link.index, owner, lab_id)


def release(claimed: Claim) -> None:
    """Delete the interface of a claim; it may be gone already."""
    # By index: the name may have become another server's since.
    _ip("link", "delete", f"if{claimed.index}")


def subnet_of(pool: IPv4Network, number: int) -> IPv4Network:
    """Return the network of pod `number`."""
    size = 2 ** (32 - _SUBNET_BITS)
    return IPv4Network((int(pool.network_address) + number * size, _SUBNET_BITS))


def set_leak_guard(pool: IPv4Network) -> None:
    """Make the host answer for addresses of labs that are gone, instead of sending them to its default gateway."""
    result = _ip("route", "add", *_guard(pool))
    if result.returncode and "File exists" not in result.stderr:
        raise IpFailed(f"cannot add the route that keeps {pool} on this host: {result.stderr.strip()}")


def remove_leak_guard(pool: IPv4Network) -> None:
    """Take it away, unless labs of any server are left."""
    if not claims():
        _ip("route", "delete", *_guard(pool))


def _guard(pool: IPv4Network) -> tuple[str, ...]:
    return ("unreachable", str(pool), "metric", _GUARD_METRIC)


def _used_networks(pool: IPv4Network) -> list[IPv4Network]:
    """Return what of the pool the host routes somewhere, addresses of its own included."""
    used = []
    for route in _ip_json("-4", "route", "show", "table", "all"):
        destination = route["dst"]
        is_guard = route.get("type") == "unreachable" and str(route.get("metric")) == _GUARD_METRIC
        if destination == "default" or is_guard:
            continue
        network = IPv4Network(destination, strict=False)
        if network.overlaps(pool) and network.prefixlen:
            used.append(network)
    return used


def _ip(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ip", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=_IP_SECONDS,
        check=False,
    )


def _ip_or_raise(*arguments: str) -> str:
    result = _ip(*arguments)
    if result.returncode:
        raise IpFailed(f"ip {' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout


def _ip_json(*arguments: str) -> list[dict[str, Any]]:
    # -details is not wanted: it makes `type veth` filters slower and adds nothing here.
    answer = _ip_or_raise("-json", *arguments).strip()
    return [entry for entry in json.loads(answer or "[]") if entry]


def missing_commands(names: Iterable[str]) -> list[str]:
    """Return which commands this host lacks, looking also where only root looks."""
    places = [Path(place) for place in ("/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin")]
    return [name for name in names if not any((place / name).exists() for place in places)]
