"""Labs on the bare host, with a stand-in for netlab."""

from __future__ import annotations

import json
import threading
import time
import uuid
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from remote_lab.errors import LabBootCancelled, LabBootFailed, LabTeardownFailed, ProviderUnavailable
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
