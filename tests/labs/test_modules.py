"""What topologies may use: FRR's modules, providers of other hosts, bridges, and what this kernel refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab_host import Host

from remote_lab.errors import LabBootFailed
from remote_lab.netlab.features import missing_kernel_features
from remote_lab.netlab.runner import LabPlace

pytestmark = pytest.mark.lab

TOPOLOGIES = Path(__file__).parent / "topologies"
PREFIX_LIST = "ip prefix-list from-{{ inventory_hostname }} seq 5 permit any\n"
BRIDGE = """
nodes:
  h1: { device: linux }
  h2: { device: linux }
  br: { device: linux, role: bridge }
links: [ h1-br, h2-br ]
validate:
  ping: { nodes: [ h1 ], wait: 20, plugin: "ping('h2')" }
"""
TRUNK = """
defaults.device: frr
module: [ vlan ]
vlans: { red: , blue: }
nodes: [ r1, r2 ]
links: [ { r1: , r2: , vlan.trunk: [ red, blue ] } ]
"""
SLOW_LINK = "defaults.device: linux\nnodes: [ h1, h2 ]\nlinks: [ { h1: { tc.delay: 10 }, h2: } ]\n"
BOND = "defaults.device: frr\nmodule: [ lag ]\nnodes: [ r1, r2 ]\nlinks: [ { lag.members: [ r1-r2, r1-r2 ] } ]\n"
MPLS = "defaults.device: frr\nmodule: [ ospf, mpls ]\nnodes: [ r1, r2 ]\nlinks: [ r1-r2 ]\n"


@pytest.fixture(scope="module")
def lab(host: Host) -> LabPlace:
    """Every module of FRR that needs nothing of the kernel but bridges and VXLAN, in one lab."""
    place = host.place((TOPOLOGIES / "modules.yml").read_text(), own__j2=PREFIX_LIST)
    host.boot(place)
    return place


def test_netlab_validates_the_lab(host: Host, lab: LabPlace, capfd: pytest.CaptureFixture[str]) -> None:
    """OSPF with BFD, IS-IS, BGP with a policy, RIP, static routes, VLANs over VXLAN with EVPN: netlab's tests pass."""
    assert host.runner.netlab(lab, ["validate"]) == 0, capfd.readouterr().out
    assert "Tests passed: 8" in capfd.readouterr().out


def test_custom_template_is_deployed(host: Host, lab: LabPlace, capfd: pytest.CaptureFixture[str]) -> None:
    """A template of the upload that a node's `config` names is rendered and deployed."""
    assert host.runner.netlab(lab, ["exec", "r1", "vtysh", "-c", "show running-config"]) == 0
    assert "ip prefix-list from-r1 seq 5 permit any" in capfd.readouterr().out


def test_boot_log_does_not_speak_of_ansible_versions(lab: LabPlace) -> None:
    """What netlab warns of in vain is not in the log of each boot."""
    log = lab.log.read_text()
    assert "Lab devices configured" in log
    assert "Ansible version" not in log


def test_nodes_of_other_providers_run_here(host: Host, lab: LabPlace) -> None:
    """Nodes whose topology wants them in containers run in the pod, like all others."""
    assert host.runner.probe(lab) is None
    assert host.runner.status(lab).count("netns") >= 7


def test_linux_bridge_forwards(host: Host, capfd: pytest.CaptureFixture[str]) -> None:
    """A Linux node with the role of a bridge joins its hosts."""
    place = host.place(BRIDGE)
    host.boot(place)
    assert host.runner.netlab(place, ["validate"]) == 0, capfd.readouterr().out
    host.runner.stop(place)


@pytest.mark.parametrize(
    ("feature", "topology", "said"),
    [
        ("vlan", TRUNK, "modprobe 8021q"),
        ("netem", SLOW_LINK, "modprobe sch_netem"),
        ("bond", BOND, "does not support lag module"),
        ("mpls", MPLS, "does not support module mpls"),
    ],
    ids=["vlan", "netem", "bond", "mpls"],
)
def test_what_the_kernel_lacks_is_refused_at_create(host: Host, feature: str, topology: str, said: str) -> None:
    """A topology boots where the kernel can, and is netlab's clear error at create where it cannot."""
    place = host.place(topology)
    if feature not in missing_kernel_features():
        host.boot(place)
    else:
        with pytest.raises(LabBootFailed) as failure:
            host.boot(place)
        assert failure.value.phase == "create"
        assert said in place.log.read_text()
    host.runner.stop(place)


def test_check_gives_the_devices_and_leaves_nothing(host: Host) -> None:
    """Checking a topology tells its devices as a boot would, without a node; nothing runs after it."""
    place = host.place(BRIDGE)
    checked = host.runner.check(place)
    assert [device.name for device in checked] == ["h1", "h2", "br"]
    assert "nodes run" not in place.log.read_text()
    assert host.runner.probe(place) == "its sandbox is gone"


def test_check_says_what_is_wrong(host: Host) -> None:
    """A topology that netlab refuses is refused with netlab's words, and nothing runs after it."""
    place = host.place("defaults.device: frr\nnodes: [ r1 ]\nlinks: [ r1-r2 ]\n")
    with pytest.raises(LabBootFailed) as failure:
        host.runner.check(place)
    assert failure.value.phase == "create"
    assert "r2" in failure.value.log_tail
    assert host.runner.probe(place) == "its sandbox is gone"
