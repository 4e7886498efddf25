"""Nodes start while netlab still works; what a topology does to its plan meanwhile counts all the same."""

from __future__ import annotations

import json
import threading

import pytest
from lab_host import Host

from remote_lab.errors import LabBootFailed
from remote_lab.netlab.netns.lab import up_name
from remote_lab.netlab.runner import LabPlace

pytestmark = pytest.mark.lab

ROUTER = "defaults.device: frr\nmodule: [ ospf ]\nnodes: [ r1 ]\nlinks: [ r1 ]\n"
HOOKED = f"defaults.netlab.up.pre_start_lab: python3 change.py\n{ROUTER}"
CHANGE_THE_PLAN = """
import json, pathlib
plan = pathlib.Path("netns.json")
data = json.loads(plan.read_text())
data["nodes"][0]["frr_daemons"].append("ripd")
plan.write_text(json.dumps(data))
"""
CHANGE_THE_RECORD = """
import pathlib, pickle, sys
sys.path.insert(0, "/opt/netlab")
record = pathlib.Path("netlab.snapshot.pickle")
topology = pickle.loads(record.read_bytes())
topology["nodes"]["r1"]["changed"] = "late"
record.write_bytes(pickle.dumps(topology))
"""
CHANGE_A_DEVICE = "def pre_link_transform(topology):\n    topology.nodes.h1.device = 'linux'\n"
LATE_LINUX = "plugin: [ late ]\ndefaults.device: frr\nnodes: [ h1, r1 ]\nlinks: [ h1-r1 ]\n"


def times_up(place: LabPlace) -> list[str]:
    return [name for line in place.log.read_text().splitlines() if (name := up_name(line))]


def running(host: Host, place: LabPlace, node: str) -> set[str]:
    shown = host.inside(place, "/opt/remote-lab/bin/netns-lab", "exec", node, "ps", "-A", "-o", "comm=").stdout
    return set(shown.split())


def boot(host: Host, place: LabPlace) -> None:
    """Not `Host.boot`, which wants nodes to be started once."""
    host.runner.boot(place, cancel=threading.Event(), report_phase=lambda phase: None)


def test_nodes_begin_before_netlab_has_written_its_files(host: Host) -> None:
    """A node is younger than the names of the nodes, and older than the first configuration."""
    place = host.place(ROUTER)
    host.boot(place)
    script = (
        "import json, os\n"
        "pid = json.load(open('/run/netns-lab.json'))['r1']['pid']\n"
        "print(json.dumps([os.stat(path).st_mtime_ns for path in"
        " ('/run/netns-draft.json', f'/proc/{pid}', 'node_files/r1/initial')]))\n"
    )
    drafted, began, rendered = json.loads(host.inside(place, "/usr/bin/python3", "-c", script).stdout)
    assert drafted <= began < rendered
    host.runner.stop(place)


def test_a_changed_plan_is_what_runs(host: Host) -> None:
    """A hook between create and start changes the plan: nodes are started anew, by the plan that there is."""
    place = host.place(HOOKED, change__py=CHANGE_THE_PLAN)
    boot(host, place)
    assert times_up(place) == ["r1", "r1"]
    assert {"zebra", "ospfd", "ripd"} <= running(host, place, "r1")
    assert host.runner.probe(place) is None
    host.runner.stop(place)


def test_a_plan_that_is_gone_is_said(host: Host) -> None:
    """By whoever needs it."""
    place = host.place(HOOKED, change__py="import os; os.unlink('netns.json')")
    with pytest.raises(LabBootFailed) as failure:
        boot(host, place)
    assert failure.value.phase == "start"
    assert "netns-lab up: [Errno 2] No such file or directory: 'netns.json'" in failure.value.log_tail


def test_devices_are_what_netlab_has_on_record_at_the_end(host: Host) -> None:
    """They are listed while nodes start; a hook behind that changes the record, and they are listed again."""
    topology = HOOKED.replace("pre_start_lab", "post_start_lab")
    place = host.place(topology, change__py=CHANGE_THE_RECORD)
    (device,) = host.boot(place)
    assert device.raw["changed"] == "late"
    host.runner.stop(place)


def test_a_device_that_changes_late_is_what_runs(host: Host) -> None:
    """A plugin makes a host of a router that was begun: nothing of the router is left."""
    place = host.place(LATE_LINUX, late__py=CHANGE_A_DEVICE)
    boot(host, place)
    assert "zebra" not in running(host, place, "h1")
    assert "zebra" in running(host, place, "r1")
    assert sorted(times_up(place)) == ["h1", "r1"]
    host.runner.stop(place)


def test_a_lab_without_nodes_of_ours_is_left_to_netlab(host: Host) -> None:
    """There is nothing to start, which nobody waits for; netlab says that there is nothing to configure."""
    place = host.place("defaults.device: linux\nnodes: { h1: { unmanaged: True } }\n")
    with pytest.raises(LabBootFailed) as failure:
        boot(host, place)
    assert failure.value.phase == "config"
    assert "0 nodes run" in failure.value.log_tail
    assert "there are no nodes to configure" in failure.value.log_tail


def test_a_topology_that_fails_after_its_names_leaves_nothing(host: Host) -> None:
    """Nodes that were begun for a lab that never comes go with its pod; the reason is netlab's."""
    place = host.place(f"{ROUTER}validate: {{ x: {{ nodes: [ nobody ] }} }}\n")
    with pytest.raises(LabBootFailed) as failure:
        host.boot(place)
    assert failure.value.phase == "create"
    assert "nobody" in failure.value.log_tail
    assert times_up(place) == []
    assert host.runner.probe(place) == "its sandbox is gone"
