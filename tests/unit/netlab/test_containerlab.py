"""Labs of containers on the bare host: the real netlab, with stand-ins for containerlab, Docker and sudo."""

from __future__ import annotations

import itertools
import json
import os
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

import pytest
import yaml

from remote_lab.errors import LabBootFailed, LabNotRunning
from remote_lab.netlab.runner import Device, LabPlace, Runner

SLOTS = itertools.count(3)
STANDINS = Path(__file__).parents[2] / "standin/clab"
# Where the kernel knows no modules, netlab fails when it looks for those that FRR containers may use.
TOPOLOGY = """
defaults.devices.frr.clab.kmods.initial: []
nodes:
  r1: { device: frr, module: [ ospf ] }
  r2: { device: frr, module: [ ospf ] }
  h1: { device: linux }
links: [ r1-r2, r2-h1 ]
"""


@dataclass
class Host:
    state_dir: Path
    runner: Runner
    slot: int

    def place(self, topology: str = TOPOLOGY) -> LabPlace:
        lab_id = str(uuid.uuid4())
        directory = self.state_dir / lab_id
        directory.mkdir()
        (directory / "lab.yml").write_text(topology)
        return LabPlace(lab_id, self.slot, directory, "lab.yml", self.state_dir / f"{lab_id}.log")

    def boot(self, place: LabPlace) -> list[Device]:
        return self.runner.boot(place, cancel=threading.Event(), report_phase=lambda phase: None)

    def calls(self, program: str) -> list[str]:
        """What containerlab or docker was asked to do, without questions for its version."""
        lines = [json.loads(line)["argv"] for line in (self.state_dir / "calls").read_text().splitlines()]
        return [" ".join(argv[1:]) for argv in lines if argv[0] == program and argv[1] != "version"]

    def running(self) -> list[str]:
        path = self.state_dir / "running"
        return path.read_text().split() if path.exists() else []


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For all tests: in a new one netlab's first call takes seconds. It keeps there which labs run."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def host(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setenv("PATH", f"{STANDINS}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("STANDIN_CALLS", str(tmp_path / "calls"))
    runner = Runner(
        provider="clab",
        netlab=None,
        image=None,
        image_dir=tmp_path,
        image_mirror=None,
        state_dir=tmp_path,
        management_pool=IPv4Network("198.18.0.0/16"),
        boot_seconds=60.0,
        teardown_seconds=60.0,
    )
    assert runner.prepare() == "clab"
    return Host(tmp_path, runner, next(SLOTS))


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda subcommands: monkeypatch.setenv("STANDIN_FAILS", subcommands)


def test_whole_life_of_a_lab_of_containers(host: Host) -> None:
    """The file for containerlab has the slot's network; the lab is deployed, configured, probed and destroyed."""
    place = host.place()
    devices = host.boot(place)
    prefix, network = f"clab-ml-{host.slot}", f"192.168.{host.slot}"
    assert [(device.name, device.raw["ansible_host"], device.raw["mgmt"]["ipv4"]) for device in devices] == [
        ("r1", f"{prefix}-r1", f"{network}.101"),
        ("r2", f"{prefix}-r2", f"{network}.102"),
        ("h1", f"{prefix}-h1", f"{network}.103"),
    ]
    lab = yaml.safe_load((place.directory / "clab.yml").read_text())
    assert (lab["name"], lab["mgmt"]["ipv4-subnet"]) == (f"ml-{host.slot}", f"{network}.0/24")
    assert lab["topology"]["nodes"]["r1"]["mgmt-ipv4"] == f"{network}.101"
    assert "node_files/r1/daemons:/etc/frr/daemons" in lab["topology"]["nodes"]["r1"]["binds"]
    assert [link["endpoints"] for link in lab["topology"]["links"]] == [["r1:eth1", "r2:eth1"], ["r2:eth2", "h1:eth1"]]
    assert host.running() == [f"{prefix}-r1", f"{prefix}-r2", f"{prefix}-h1"]
    assert f"exec {prefix}-r1 /etc/config/02-ospf.sh" in host.calls("docker")
    assert host.runner.probe(place) is None
    (host.state_dir / "running").write_text(f"{prefix}-r1\n{prefix}-h1\n")
    assert host.runner.probe(place) == "not running: r2"
    assert f"{prefix}-r1" in host.runner.status(place)
    host.runner.stop(place)
    assert host.calls("containerlab") == ["deploy --reconfigure -t clab.yml", "destroy --cleanup -t clab.yml"]
    assert host.running() == []
    assert [path.name for path in place.directory.iterdir()] == ["lab.yml"]
    host.runner.stop(place)


@pytest.mark.parametrize(("subcommand", "phase"), [("deploy", "start"), ("exec", "config")])
def test_failing_boot_is_destroyed(host: Host, fails: Callable[[str], None], subcommand: str, phase: str) -> None:
    """A boot that fails in containerlab or in a container says in which phase and why, and is destroyed."""
    place = host.place()
    fails(subcommand)
    with pytest.raises(LabBootFailed) as failure:
        host.boot(place)
    assert (failure.value.phase, failure.value.reason) == (phase, "netlab up ended with status 1")
    assert f"told to fail in {subcommand}" in place.log.read_text()
    assert host.calls("containerlab")[-1] == "destroy --cleanup -t clab.yml"
    assert host.running() == []


def test_failing_destroy_is_forced_and_told(
    host: Host, fails: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    """A teardown that works by force alone says that containers may be left; the slot is free for the next lab."""
    place = host.place()
    host.boot(place)
    fails("destroy")
    host.runner.stop(place)
    assert "worked only by force" in caplog.text
    fails("")
    host.boot(host.place())


def test_dead_docker_is_no_finished_teardown(
    host: Host, fails: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    """netlab ends with status 0 when Docker does not answer; nobody takes that for a lab that is gone."""
    place = host.place()
    host.boot(place)
    fails("version")
    host.runner.stop(place)
    assert "worked only by force" in caplog.text


def test_check_creates_and_starts_nothing(host: Host) -> None:
    """Checking a topology gives its devices and asks containerlab for nothing; a wrong one says why."""
    assert [device.name for device in host.runner.check(host.place())] == ["r1", "r2", "h1"]
    with pytest.raises(LabBootFailed) as failure:
        host.runner.check(host.place("nodes: [ r1 ]\nlinks: [ r1-r2 ]\ndefaults.device: frr\n"))
    assert failure.value.phase == "create"
    assert "r2" in failure.value.log_tail
    assert not (host.state_dir / "calls").exists()


def test_operators_netlab_runs_in_the_directory_of_the_lab(host: Host, capfd: pytest.CaptureFixture[str]) -> None:
    """An operator's command prints to the operator and returns netlab's status; without a lab it is refused."""
    place = host.place()
    with pytest.raises(LabNotRunning, match="netlab has no record of it"):
        host.runner.netlab(place, ["status"])
    host.boot(place)
    assert host.runner.netlab(place, ["inspect", "--node", "r1", "id"]) == 0
    assert capfd.readouterr().out.strip() == "1"
    assert host.runner.netlab(place, ["no-such-command"]) != 0


def test_devices_in_containers_are_asked_through_docker(host: Host, fails: Callable[[str], None]) -> None:
    """The real `netlab exec` runs each command in each container; one that fails there is shown as that."""
    place = host.place()
    devices = host.boot(place)
    states = {state.name: state for state in host.runner.collect(place, devices)}
    assert {name: state.device for name, state in states.items()} == {"r1": "frr", "r2": "frr", "h1": "linux"}
    assert {(one.output, one.ok) for state in states.values() for one in state.outputs} == {("docker stand-in\n", True)}
    assert states["r1"].outputs[0].command == "vtysh -c 'show running-config'"
    prefix, asked = f"clab-ml-{host.slot}", host.calls("docker")
    for name in ("r1", "r2"):
        assert f'exec {prefix}-{name} bash -c vtysh -c "show running-config"' in asked
    assert f"exec {prefix}-h1 sh -il -c ip -6 route show" in asked
    fails("exec")
    failed = host.runner.collect(place, devices)
    assert {(one.output.strip(), one.ok) for state in failed for one in state.outputs} == {("", False)}
