"""The scripts that configure a node: in few processes, with their own words, and nowhere but in the node."""

from __future__ import annotations

import pytest
from lab_host import Host

from remote_lab.errors import LabBootFailed

pytestmark = pytest.mark.lab

ROUTER = "defaults.device: frr\nmodule: [ ospf ]\nnodes: [ r1 ]\nlinks: [ r1 ]\n"
HOLD = "#!/bin/bash\nsleep 60 9>/tmp/config-second >/dev/null 2>&1 &\n"
BASH = "echo by bash > /root/second\n"
PYTHON = "#!/usr/bin/env python3\nopen('/root/second', 'w').write('by Python')\n"
LINK = "#!/bin/bash\nln -s /etc/hostname /tmp/config-second\n"
MAX_PROCESSES = 40
"""Of a router with OSPF until the answer; they are 33, and were 80 when vtysh forked for each daemon."""


def test_a_router_is_configured_by_few_processes(host: Host) -> None:
    """Counted by the numbers that its kernel gave away."""
    place = host.place(ROUTER)
    host.boot(place)
    shown = host.inside(place, "/opt/remote-lab/bin/netns-lab", "exec", "r1", "sh", "-c", "echo $$").stdout
    assert 20 < int(shown) < MAX_PROCESSES
    host.runner.stop(place)


def test_what_a_node_says_of_its_configuration_is_told_once(host: Host) -> None:
    """A line that FRR does not know fails the boot with the line, once."""
    place = host.place(ROUTER.replace("[ r1 ]\n", "{ r1: { config: [ own ] } }\n", 1), own__j2="no such command\n")
    with pytest.raises(LabBootFailed) as failure:
        host.boot(place)
    assert failure.value.phase == "config"
    assert failure.value.log_tail.count("Unknown command") == 1
    assert "own configuration failed on node r1" in failure.value.log_tail


def test_a_script_is_not_written_through_a_link(host: Host) -> None:
    """What runs in a node may be anything: it leaves a link where the next script goes, to a file of the pod."""
    nodes = "{ h1: { config: [ first, second ] } }"
    place = host.place(f"defaults.device: linux\nnodes: {nodes}\n", first__j2=LINK, second__j2="echo written\n")
    with pytest.raises(LabBootFailed) as failure:
        host.boot(place)
    assert failure.value.phase == "config"
    assert "/tmp/config-second cannot be written: Too many levels of symbolic links" in failure.value.log_tail


@pytest.mark.parametrize(
    ("second", "written"),
    [("echo by bash > /root/second\n", "by bash\n"), (PYTHON, "by Python")],
    ids=["bash", "python"],
)
def test_a_script_that_somebody_writes_to_is_run(host: Host, second: str, written: str) -> None:
    """As happens for a moment when netlab starts a process in one thread while it writes in another one."""
    nodes = "{ h1: { config: [ first, second ] } }"
    place = host.place(f"defaults.device: linux\nnodes: {nodes}\n", first__j2=HOLD, second__j2=second)
    host.boot(place)
    shown = host.inside(place, "/opt/remote-lab/bin/netns-lab", "exec", "h1", "cat", "/root/second").stdout
    assert shown == written
    host.runner.stop(place)
