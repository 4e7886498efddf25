"""Labs on the bare host, with a stand-in for netlab."""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from remote_lab.errors import LabBootCancelled, LabBootFailed, LabTeardownFailed, ProviderUnavailable
from remote_lab.netlab import runner as netlab_runner
from remote_lab.netlab.allowlist import in_plain_yaml
from remote_lab.netlab.device_state import CommandOutput
from remote_lab.netlab.runner import PHASES, Device, LabPlace, Runner

STANDIN = Path(__file__).parents[2] / "standin/netlab"


def make_runner(
    state_dir: Path, *, netlab: str = str(STANDIN), boot_seconds: float = 20.0, teardown_seconds: float = 20.0
) -> Runner:
    return Runner(
        provider="clab",
        netlab=netlab,
        image=None,
        image_dir=state_dir,
        image_mirror=None,
        state_dir=state_dir,
        management_pool=IPv4Network("198.18.0.0/16"),
        boot_seconds=boot_seconds,
        teardown_seconds=teardown_seconds,
    )


def make_place(state_dir: Path, standin: str = "{}", slot: int = 1) -> LabPlace:
    lab_id = str(uuid.uuid4())
    directory = state_dir / lab_id
    directory.mkdir()
    (directory / "lab.yml").write_text(f"standin: {standin}\nnodes: [ r1, r2 ]\n")
    return LabPlace(lab_id, slot, directory, "lab.yml", state_dir / f"{lab_id}.log")


def boot(runner: Runner, place: LabPlace) -> list[Device]:
    return runner.boot(place, cancel=threading.Event(), report_phase=lambda phase: None)


def calls(state_dir: Path) -> list[list[str]]:
    lines = (state_dir / "standin-calls.jsonl").read_text().splitlines()
    return [json.loads(line)["argv"] for line in lines]


def test_whole_life_of_a_lab(tmp_path: Path) -> None:
    """Boot, probe, status and stop are plain netlab calls, one of them for all devices."""
    runner = make_runner(tmp_path)
    assert runner.prepare() == "clab"
    place = make_place(tmp_path, slot=3)
    phases: list[str] = []
    devices = runner.boot(place, cancel=threading.Event(), report_phase=phases.append)
    assert [(device.name, device.raw["mgmt"]["ipv4"]) for device in devices] == [
        ("r1", "192.168.3.101"),
        ("r2", "192.168.3.102"),
    ]
    assert phases == [phase for phase in PHASES if phase != "start"]
    assert runner.probe(place) is None
    assert "r1 Up" in runner.status(place)
    runner.stop(place)
    runner.stop(place)
    assert runner.probe(place) == "netlab has no record of it"
    up, *others = calls(tmp_path)
    assert up == ["up", "-p", "clab", "--plugin", "multilab", "-s", "defaults.multilab.id=3", "./lab.yml"]
    assert [argv[0] for argv in others] == ["inspect", "status", "status", "down"]


def test_failed_boot_is_torn_down(tmp_path: Path) -> None:
    """A boot that fails says so with netlab's words, and netlab is asked to clean up."""
    with pytest.raises(LabBootFailed) as failure:
        boot(make_runner(tmp_path), make_place(tmp_path, "{ up_fails: true }"))
    assert failure.value.reason == "netlab up ended with status 1"
    assert "told to fail in up" in failure.value.log_tail
    assert calls(tmp_path)[-1] == ["down", "--cleanup"]


def test_hanging_boot_is_ended_at_its_deadline(tmp_path: Path) -> None:
    """A boot that hangs is ended at its deadline and torn down."""
    runner = make_runner(tmp_path, boot_seconds=1.0)
    began = time.monotonic()
    with pytest.raises(LabBootFailed, match="longer than the server allows"):
        boot(runner, make_place(tmp_path, "{ up_hangs: true }"))
    assert time.monotonic() - began < 5.0
    assert calls(tmp_path)[-1] == ["down", "--cleanup"]


def test_cancelled_boot_is_torn_down(tmp_path: Path) -> None:
    """A boot that nobody wants any more is ended and torn down."""
    place, cancel = make_place(tmp_path, "{ up_hangs: true }"), threading.Event()

    def report_phase(phase: str) -> None:
        if phase == "config":
            cancel.set()

    with pytest.raises(LabBootCancelled):
        make_runner(tmp_path).boot(place, cancel=cancel, report_phase=report_phase)
    assert calls(tmp_path)[-1] == ["down", "--cleanup"]


def test_teardown_escalates(tmp_path: Path) -> None:
    """A failing `netlab down` is followed by a forced one."""
    runner, place = make_runner(tmp_path), make_place(tmp_path, "{ down_fails: true }")
    boot(runner, place)
    runner.stop(place)
    assert calls(tmp_path)[-2:] == [["down", "--cleanup"], ["down", "--cleanup", "--force"]]


def test_teardown_that_fails_in_every_way_is_an_error(tmp_path: Path) -> None:
    """When the forced teardown hangs as well, the error comes by the deadline and names the lab."""
    standin = "{ down_hangs: true, down_force_hangs: true }"
    runner, place = make_runner(tmp_path, teardown_seconds=1.0), make_place(tmp_path, standin)
    boot(runner, place)
    with pytest.raises(LabTeardownFailed, match=place.lab_id):
        runner.stop(place)


def test_dead_node_is_noticed(tmp_path: Path) -> None:
    """The probe names the node that netlab says is not up."""
    runner, place = make_runner(tmp_path), make_place(tmp_path, "{ dies: [ r2 ] }")
    boot(runner, place)
    assert runner.probe(place) == "not running: r2"


def test_missing_netlab_stops_the_start(tmp_path: Path) -> None:
    """Without netlab the server does not start, and says how to get it."""
    with pytest.raises(ProviderUnavailable, match="pip install networklab"):
        make_runner(tmp_path, netlab=str(tmp_path / "no-netlab")).prepare()


def test_devices_are_asked_all_at_once_for_each_command(tmp_path: Path) -> None:
    """One `netlab exec` for every command, and the answers come back to the devices they are of."""
    runner, place = make_runner(tmp_path), make_place(tmp_path, "{ device: linux }")
    states = runner.collect(place, boot(runner, place))
    asked = [argv for argv in calls(tmp_path) if argv[0] == "exec"]
    assert sorted(asked) == sorted(["exec", "--header", "r1,r2", *one.command.split()] for one in states[0].outputs)
    assert [(state.name, state.outputs[0]) for state in states] == [
        (name, CommandOutput("ip address show", f"{name} says show\n", True)) for name in ("r1", "r2")
    ]
    runner.stop(place)


def test_devices_that_cannot_be_asked_say_why(tmp_path: Path) -> None:
    """netlab fails, or there is none any more: no error of the call."""
    runner, place = make_runner(tmp_path), make_place(tmp_path, "{ device: linux, exec_fails: true }")
    devices = boot(runner, place)
    assert {one.ok for state in runner.collect(place, devices) for one in state.outputs} == {False}
    gone = make_runner(tmp_path, netlab=str(tmp_path / "nowhere")).collect(place, devices)
    assert {one.output for state in gone for one in state.outputs} == {"not asked: netlab is not installed\n"}
    runner.stop(place)


def test_asking_devices_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not there by then is said of the device; nothing goes on behind it."""
    monkeypatch.setattr(netlab_runner, "COLLECT_SECONDS", 1.0)
    runner, place = make_runner(tmp_path), make_place(tmp_path, "{ device: frr, exec_hangs: true }")
    devices = boot(runner, place)
    began = time.monotonic()
    (state, _) = runner.collect(place, devices)
    assert time.monotonic() - began < 10
    assert {one.ok for one in state.outputs} == {False}
    pids = [json.loads(line)["pid"] for line in (tmp_path / "standin-calls.jsonl").read_text().splitlines()]
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    runner.stop(place)


@pytest.mark.parametrize("name", ["--help", "r1,r2", "r*", "", "r1 r2", "r1\n"])
def test_a_name_that_means_something_else_to_netlab_is_not_asked(tmp_path: Path, name: str) -> None:
    """Names come from the lab."""
    runner, place = make_runner(tmp_path), make_place(tmp_path)
    (state,) = runner.collect(place, [Device(name, {"ansible_network_os": "linux"})])
    assert {(one.output, one.ok) for one in state.outputs} == {("not asked: the device was not reached\n", False)}
    assert not (tmp_path / "standin-calls.jsonl").exists()


def test_what_a_pod_alone_has_is_not_there(tmp_path: Path) -> None:
    """No key of its own, and no word of which nodes are up."""
    runner, place = make_runner(tmp_path), make_place(tmp_path)
    ready: list[str] = []
    runner.boot(place, cancel=threading.Event(), report_phase=lambda phase: None, report_ready=ready.append)
    assert (ready, runner.login_key(place), runner.provider) == ([], None, "clab")
    runner.stop(place)


def test_an_upload_may_be_read_while_it_is_admitted(tmp_path: Path) -> None:
    """Kept ones are: the reader gets all of what was there, the next one all of what was checked, and nothing else."""
    runner, place = make_runner(tmp_path), make_place(tmp_path)
    topology = place.directory / place.topology
    written = b"nodes: [ r1, r2 ]  # as it came\n"
    topology.write_bytes(written)
    with topology.open("rb", buffering=0) as reader:
        begun = reader.read(5)
        assert runner.admit(place.directory, place.topology) == []
        assert begun + reader.read() == written
    plain = topology.read_bytes()
    assert plain == in_plain_yaml(written) != written
    assert [path.name for path in tmp_path.iterdir()] == [place.lab_id]
    assert [path.name for path in place.directory.iterdir()] == [place.topology]


def test_what_is_admitted_already_is_left_alone(tmp_path: Path) -> None:
    """Every boot of a kept upload looks at it again."""
    runner, place = make_runner(tmp_path), make_place(tmp_path)
    topology = place.directory / place.topology
    topology.write_bytes(in_plain_yaml(b"nodes: [ r1, r2 ]\n"))
    os.utime(topology, ns=(0, 0))
    assert runner.admit(place.directory, place.topology) == []
    assert topology.stat().st_mtime_ns == 0
