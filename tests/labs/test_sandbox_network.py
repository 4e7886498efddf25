"""From a lab nothing of the host can be reached, and nothing through it; from the host the lab can."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab_host import COMMAND_SECONDS, POOL, Host

from remote_lab.netlab import management
from remote_lab.netlab.runner import Device, LabPlace

pytestmark = pytest.mark.lab

SINGLE = "defaults.device: linux\nnodes: [ h1 ]\n"
_PORT = 7000
_FIREWALL = "from remote_lab.netlab import firewall; print(firewall.ensure())"
# Tries to reach everything at once and prints what could be; for UDP the listener knows.
_ATTEMPT = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def attempt(target):
    host, port = target
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.sendto(b"from the lab", (host, port))
    except OSError:
        pass
    try:
        socket.create_connection((host, port), timeout=1.0).close()
    except OSError:
        return None
    return target
targets = json.loads(sys.argv[1])
with ThreadPoolExecutor(16) as threads:
    print(json.dumps([found for found in threads.map(attempt, targets) if found]))
"""


@dataclass
class Lab:
    """A running lab of one Linux host."""

    place: LabPlace
    device: Device
    host_address: str


@pytest.fixture(scope="module")
def labs(host: Host) -> list[Lab]:
    found = []
    for _ in range(2):
        place = host.place(SINGLE)
        (device,) = host.boot(place)
        network = management.ManagementNetwork(
            host.pod(place).number, management.subnet_of(POOL, host.pod(place).number)
        )
        found.append(Lab(place, device, str(network.host_address)))
    return found


@pytest.fixture
def listeners() -> Iterator[tuple[list[socket.socket], list[socket.socket], int]]:
    """TCP and UDP on one port of all addresses of this host, IPv4 and IPv6."""
    with ExitStack() as stack:
        tcp = stack.enter_context(closing(socket.create_server(("0.0.0.0", 0))))
        port = tcp.getsockname()[1]
        tcp6 = stack.enter_context(closing(socket.create_server(("::", port), family=socket.AF_INET6)))
        udp = [
            stack.enter_context(closing(socket.socket(family, socket.SOCK_DGRAM)))
            for family in (socket.AF_INET, socket.AF_INET6)
        ]
        udp[1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        udp[0].bind(("0.0.0.0", port))
        udp[1].bind(("::", port))
        yield [tcp, tcp6], udp, port


def test_host_cannot_be_reached_from_a_lab(
    host: Host, labs: list[Lab], listeners: tuple[list[socket.socket], list[socket.socket], int]
) -> None:
    """Neither a device nor code of the lab reaches a service of the host on any of its addresses, with TCP or UDP."""
    _, udp, port = listeners
    lab = labs[0]
    link = f"rlab{host.pod(lab.place).number}"
    addresses = [str(entry["local"]) for entry in _addresses() if "local" in entry]
    targets = [[address, port] for address in {lab.host_address, *addresses} if not address.startswith(("127.", "::1"))]
    route = f"ip route replace default via {lab.host_address}"
    for where in (["netns-lab", "exec", "h1"], []):
        assert host.inside(lab.place, "/usr/bin/env", *where, "sh", "-c", route).returncode == 0
        assert _reached(host, lab.place, where, targets) == []
    for one in udp:
        one.setblocking(False)
        with pytest.raises(BlockingIOError):
            one.recv(100)
    assert [entry for entry in _addresses(link) if entry.get("family") == "inet6"] == []


def test_listeners_of_that_test_hear(listeners: tuple[list[socket.socket], list[socket.socket], int]) -> None:
    """What the test above calls unreachable can be reached from the host itself."""
    _, udp, port = listeners
    found = subprocess.run(
        [sys.executable, "-c", _ATTEMPT, json.dumps([["127.0.0.1", port], ["::1", port]])],
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=True,
    )
    assert json.loads(found.stdout) == [["127.0.0.1", port], ["::1", port]]
    assert [one.recv(100) for one in udp] == [b"from the lab", b"from the lab"]


def test_labs_cannot_reach_each_other(host: Host, labs: list[Lab]) -> None:
    """A port that is open on a device of one lab is not there for another one, which knows the way."""
    one, other = labs
    target = [[str(other.device.raw["mgmt"]["ipv4"]), 22]]
    for where in (["netns-lab", "exec", "h1"], []):
        route = f"ip route replace {target[0][0]} via {one.host_address}"
        assert host.inside(one.place, "/usr/bin/env", *where, "sh", "-c", route).returncode == 0
        assert _reached(host, one.place, where, target) == []


def test_host_reaches_devices(labs: list[Lab], ssh: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """The host logs in to the devices of both labs meanwhile."""
    assert [ssh(lab.device, "hostname").stdout for lab in labs] == ["h1\n", "h1\n"]


class Routers:
    """A host of our own in a network namespace: it routes, with two labs and the world around it."""

    def __init__(self, stack: ExitStack) -> None:
        self.pids = {}
        for name in ("host", "lab", "other", "world"):
            process = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
            stack.callback(process.wait)
            stack.callback(process.kill)
            self.pids[name] = process.pid
        for name in self.pids:
            while Path(f"/proc/{self.pids[name]}/comm").read_text() != "sleep\n":
                pass
        self.run("host", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        for number, (name, link) in enumerate({"lab": "rlab1", "other": "rlab2", "world": "eth0"}.items(), 1):
            self.run(
                "host", "ip", "link", "add", link, "type", "veth", "peer", "name", "uplink", "netns", self.pid(name)
            )
            self.run("host", "ip", "address", "add", f"198.18.{number}.254/24", "dev", link)
            self.run("host", "ip", "link", "set", link, "up")
            self.run(name, "ip", "address", "add", f"198.18.{number}.1/24", "dev", "uplink")
            self.run(name, "ip", "link", "set", "uplink", "up")
            self.run(name, "ip", "route", "add", "default", "via", f"198.18.{number}.254")

    def pid(self, name: str) -> str:
        return str(self.pids[name])

    def run(self, name: str, *command: str) -> str:
        return subprocess.run(
            ["nsenter", "-t", self.pid(name), "-n", "--", *command],
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=True,
        ).stdout

    def listen(self, stack: ExitStack, name: str) -> None:
        code = f"import socket,time; s=socket.create_server(('', {_PORT})); print('ready', flush=True); time.sleep(600)"
        process = subprocess.Popen(
            ["nsenter", "-t", self.pid(name), "-n", "--", sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.stdout.close()

    def reached(self, name: str, *addresses: str) -> list[str]:
        targets = json.dumps([[address, _PORT] for address in addresses])
        return [address for address, _ in json.loads(self.run(name, sys.executable, "-c", _ATTEMPT, targets))]

    def firewall(self) -> str:
        return self.run("host", sys.executable, "-c", _FIREWALL).strip()


def test_host_that_routes_lets_nothing_out_of_a_lab() -> None:
    """On a host with ip_forward=1 a lab reaches neither another lab nor the world, under a forged address neither.

    What the world opens to a lab, because somebody routes it there, is answered. Rules that were flushed are put back.
    """
    with ExitStack() as stack:
        routers = Routers(stack)
        for name in routers.pids:
            routers.listen(stack, name)
        others = ["198.18.2.1", "198.18.3.1", "198.18.1.254", "198.18.3.254"]
        assert routers.reached("lab", *others) == others
        assert routers.firewall() == "True"
        assert routers.reached("lab", *others) == []
        assert routers.firewall() == "False"
        assert [routers.reached(name, "198.18.1.1") for name in ("world", "host")] == [["198.18.1.1"]] * 2
        routers.run("host", "nft", "flush", "ruleset")
        assert routers.reached("lab", *others) == others
        assert routers.firewall() == "True"
        routers.run("lab", "ip", "link", "set", "lo", "up")
        routers.run("lab", "ip", "address", "add", "198.18.3.77/32", "dev", "lo")
        routers.run("lab", "ip", "route", "replace", "default", "via", "198.18.1.254", "src", "198.18.3.77")
        assert routers.reached("lab", *others) == []


def test_reaper_puts_flushed_rules_back(tmp_path: Path) -> None:
    """A look for orphans, which the reaper takes all the time, is enough."""
    code = (
        "import sys; from pathlib import Path; sys.path[:0] = sys.argv[2:];"
        "from lab_host import make_runner; runner = make_runner(Path(sys.argv[1])); runner.prepare();"
        "import subprocess; subprocess.run(['nft', 'flush', 'ruleset'], check=True); runner.orphans(())"
    )
    paths = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    look = [sys.executable, "-c", code, str(tmp_path), *paths]
    listed = subprocess.run(
        ["unshare", "--net", "sh", "-c", '"$@" && nft list table inet remote_lab', "sh", *look],
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert 'iifname "rlab*" drop' in listed.stdout, listed.stderr


def _addresses(link: str = "") -> list[dict[str, object]]:
    command = ["ip", "-json", "address", "show", *(["dev", link] if link else [])]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return [entry for one in found for entry in one.get("addr_info", [])]


def _reached(host: Host, place: LabPlace, where: list[str], targets: list[list[object]]) -> object:
    found = host.inside(place, "/usr/bin/env", *where, "python3", "-c", _ATTEMPT, json.dumps(targets))
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)
