"""What a running lab says of itself: which nodes are up, its key, the state of its devices."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from lab_host import EXAMPLES, Host, make_runner

from remote_lab.netlab.runner import Device, DeviceState, LabPlace

pytestmark = pytest.mark.lab

Ssh = Callable[..., subprocess.CompletedProcess[str]]
COLLECT = ("/opt/remote-lab/bin/netns-lab", "collect")


@dataclass
class Lab:
    place: LabPlace
    devices: list[Device]
    events: list[str]


@pytest.fixture(scope="module")
def lab(host: Host) -> Lab:
    place = host.place((EXAMPLES / "services.yml").read_text())
    events: list[str] = []
    never = threading.Event()
    devices = host.runner.boot(place, cancel=never, report_phase=events.append, report_ready=events.append)
    return Lab(place, devices, events)


def collect(host: Host, lab: Lab) -> dict[str, DeviceState]:
    return {state.name: state for state in host.runner.collect(lab.place, lab.devices)}


def test_nodes_are_said_to_be_up_while_they_start(lab: Lab) -> None:
    """Each of them once, between the beginning of that phase and the next."""
    begin, end = lab.events.index("start"), lab.events.index("config")
    assert sorted(lab.events[begin + 1 : end]) == sorted(device.name for device in lab.devices)
    assert set(lab.events[:begin] + lab.events[end:]) == {"pod", "create", "config", "devices"}


def test_each_node_names_the_key(lab: Lab) -> None:
    """By which a client knows that the lab has one; daemons have it from the device that they run on."""
    assert {device.raw["ansible_ssh_private_key_file"] for device in lab.devices} == {"netns_files/id_ed25519"}


def test_a_lab_cannot_invent_nodes(host: Host) -> None:
    """A topology that prints what the runtime prints gets no node more, and none before its time."""
    plugin = "def init(topology):\n  print('node r1 is up\\nnode x is up', flush=True)\n"
    place = host.place("plugin: [ liar ]\nnodes: { r1: { device: linux } }\n", liar__py=plugin)
    events: list[str] = []
    never = threading.Event()
    host.runner.boot(place, cancel=never, report_phase=events.append, report_ready=events.append)
    assert events == ["pod", "create", "start", "r1", "config", "devices"]
    assert place.log.read_text().count("node r1 is up\n") > 1
    host.runner.stop(place)


def test_the_key_logs_in_to_every_device(
    host: Host, lab: Lab, ssh: Ssh, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also the one that a restarted server reads."""
    key = make_runner(host.state_dir).login_key(lab.place)
    assert key is not None
    assert key == host.runner.login_key(lab.place)
    path = tmp_path_factory.mktemp("key") / "id"
    path.write_text(key)
    path.chmod(0o600)
    assert [ssh(device, "hostname", path).stdout for device in lab.devices] == [f"{one.name}\n" for one in lab.devices]


@pytest.mark.parametrize(
    "trick",
    [
        "ln -sf /etc/shadow netns_files/id_ed25519",
        "rm netns_files/id_ed25519; mkfifo netns_files/id_ed25519",
        "echo hello > netns_files/id_ed25519",
        "cat netns_files/spare netns_files/spare > netns_files/id_ed25519",
        "rm -r netns_files; ln -s /root/.ssh netns_files",
    ],
)
def test_what_is_no_key_of_the_lab_is_not_handed_out(host: Host, lab: Lab, trick: str) -> None:
    """Whatever code of the lab puts in its place: nothing of the host, and nothing that is no key."""
    save = "rm -rf spare; cp -a netns_files spare; cp netns_files/id_ed25519 netns_files/spare; "
    host.inside(lab.place, "/bin/sh", "-c", save + trick)
    assert host.runner.login_key(lab.place) is None
    host.inside(lab.place, "/bin/sh", "-c", "rm -rf netns_files; mv spare netns_files")
    assert host.runner.login_key(lab.place) is not None


def test_every_device_shows_its_configuration_and_routes(host: Host, lab: Lab) -> None:
    """Routers of both kinds, hosts and servers; every command of the table works here."""
    states = collect(host, lab)
    kinds = {name: state.device for name, state in states.items()}
    assert kinds == {"r1": "frr", "r2": "bird", "server": "dnsmasq", "h1": "linux", "h2": "linux"}
    failed = [(name, one) for name, state in states.items() for one in state.outputs if not one.ok]
    assert failed == []
    said = {(name, one.command): one.output for name, state in states.items() for one in state.outputs}
    assert "hostname r1\n" in said["r1", "vtysh -c 'show running-config'"]
    assert "Neighbor ID" in said["r1", "vtysh -c 'show ip ospf neighbor'"]
    assert "protocol ospf" in said["r2", "sh -c 'cat /etc/bird/*.conf'"]
    assert "domain=lab.test" in said["server", "cat /etc/dnsmasq.conf"]
    assert "172.16.0.1 dev eth1" in said["h1", "ip route show"]


def test_a_command_that_fails_is_shown_as_that(host: Host, lab: Lab) -> None:
    """With the words of the device; the others are not harmed."""
    node = ("/opt/remote-lab/bin/netns-lab", "exec", "h2")
    host.inside(lab.place, *node, "sh", "-c", "mv /usr/sbin/ip /usr/sbin/ip.kept && cp /bin/false /usr/sbin/ip")
    states = collect(host, lab)
    host.inside(lab.place, *node, "mv", "/usr/sbin/ip.kept", "/usr/sbin/ip")
    assert {one.ok for one in states["h2"].outputs if one.command.startswith("ip ")} == {False}
    assert {one.ok for one in states["h1"].outputs} == {True}


def test_collecting_is_bounded_in_time_and_size(host: Host, lab: Lab) -> None:
    """Of one command and of all; what was begun has ended, and later commands were not begun."""
    wanted = {
        "commands": [["sh", "-c", "echo before; sleep 4711"], ["echo", "late"], ["yes"], ["echo", "hello"]],
        "nodes": {"r1": [0, 1], "h1": [3, 2, 3], "nobody": [3]},
        "seconds": 2,
        "output_bytes": 1000,
        "total_bytes": 1020,
    }
    said = json.loads(host.inside(lab.place, *COLLECT, json.dumps(wanted)).stdout)
    (slow, slow_ok), (late, late_ok) = said["r1"]
    assert (slow.splitlines()[0], slow_ok, late_ok) == ("before", False, False)
    assert late.startswith("not asked")
    (hello, ok), (loud, loud_ok), _ = said["h1"]
    assert (hello, ok, loud_ok) == ("hello\n", True, False)
    assert loud.count("y\n") <= 500
    assert sum(text.count("y\n") * 2 for text, _ in said["h1"]) + len("hello\nbefore\n") <= 1020
    assert said["nobody"][0][1] is False
    assert host.inside(lab.place, "/usr/bin/pgrep", "-f", "sleep 4711|^yes$").stdout == ""


def test_a_lab_that_forges_its_state_is_believed_nothing(host: Host, lab: Lab) -> None:
    """Its answer is data: what has another shape is dropped, and the caller is told."""
    for forged in ("[1, 2]", '{"r1": 1}', '{"r1": [["x"]]}', "[" * 5000, "no JSON"):
        program = f"#!/bin/sh\ncat <<'END'\n{forged}\nEND\n"
        host.inside(
            lab.place, "/bin/sh", "-c", f'cp -n {COLLECT[0]} /tmp/spare; printf %s "$0" > {COLLECT[0]}', program
        )
        states = collect(host, lab)
        assert {one.ok for state in states.values() for one in state.outputs} == {False}
        assert "printed something else" in states["r1"].outputs[0].output
    host.inside(lab.place, "/bin/cp", "/tmp/spare", COLLECT[0])
    assert collect(host, lab)["r1"].outputs[0].ok
