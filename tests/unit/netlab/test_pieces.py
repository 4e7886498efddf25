"""Small decisions of the netlab room that need no lab."""

from __future__ import annotations

import json
import os
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from remote_lab.errors import ImageUnavailable
from remote_lab.netlab import processes
from remote_lab.netlab.boot import Device, read_devices, read_log_tail
from remote_lab.netlab.features import netlab_defaults
from remote_lab.netlab.image import Images
from remote_lab.netlab.limits import lab_limits
from remote_lab.netlab.management import ManagementNetwork, subnet_of
from remote_lab.netlab.netns.kernel_needs import missing_for
from remote_lab.netlab.pod import Pod, Pods
from remote_lab.netlab.pod_site import state_tag


def test_devices_are_read_from_pairs() -> None:
    """Pairs of name and data become devices, in order."""
    assert read_devices('[["r1", {"id": 1}], ["r2", {}]]') == [Device("r1", {"id": 1}), Device("r2", {})]


@pytest.mark.parametrize("text", ["", "no JSON", "{}", '["r1"]', '[["r1"]]', "[[1, {}]]", '[["r1", []]]'])
def test_anything_else_is_no_device(text: str) -> None:
    """What a forged lab may print instead is refused."""
    with pytest.raises(ValueError, match=r"."):
        read_devices(text)


def test_log_tail_is_the_end_of_the_log(tmp_path: Path) -> None:
    """The tail is the last forty lines, and nothing when there is no log."""
    log = tmp_path / "log"
    assert read_log_tail(log) == ""
    log.write_text("".join(f"{number}\n" for number in range(10_000)))
    assert read_log_tail(log).splitlines() == [str(number) for number in range(9_960, 10_000)]


def test_missing_features_are_said_of_the_devices() -> None:
    """netlab's defaults of a pod deny what the kernel lacks and keep what it has."""
    defaults = json.loads(netlab_defaults({"vrf", "vlan", "gre"}, "198.18.1.253/24"))
    for device in (defaults["devices"]["frr"], defaults["devices"]["linux"], defaults["daemons"]["bird"]):
        assert (device["features.vrf"], device["features.tunnel.gre"]) == (False, False)
        assert "features.mpls" not in device
    assert defaults["providers"]["netns"]["missing"] == ["gre", "vlan", "vrf"]
    assert defaults["providers"]["netns"]["management_address"] == "198.18.1.253/24"
    assert "features.vrf" not in json.loads(netlab_defaults((), ""))["devices"]["frr"]


@pytest.mark.parametrize(
    ("interface", "missing", "names"),
    [
        ({"ifname": "eth1.5", "type": "vlan_member"}, {"vlan"}, ["r1", "eth1.5", "8021q", "CONFIG_VLAN_8021Q"]),
        ({"ifname": "bond1", "type": "lag"}, {"bond"}, ["r1", "bond1", "bonding", "CONFIG_BONDING"]),
        ({"ifname": "eth1", "type": "p2p", "tc": {"delay": 10}}, {"netem"}, ["r1", "eth1", "sch_netem"]),
        ({"ifname": "vlan5", "type": "svi"}, {"vlan", "bond", "netem"}, []),
        ({"ifname": "eth1.5", "type": "vlan_member"}, {"bond"}, []),
    ],
)
def test_interface_that_the_kernel_lacks_is_named(
    interface: dict[str, Any], missing: set[str], names: list[str]
) -> None:
    """A node is refused for an interface that this kernel cannot make, with the module and option that would do."""
    found = missing_for({"name": "r1", "interfaces": [interface, interface]}, missing)
    assert len(found) == bool(names)
    said = " ".join(f"{lack.text} {lack.remedy}" for lack in found)
    assert [name for name in names if name not in said] == []


def test_management_network_of_a_number() -> None:
    """The number picks the network; host and pod take the addresses at its end."""
    network = ManagementNetwork(7, subnet_of(IPv4Network("198.18.0.0/16"), 7))
    assert network.subnet == IPv4Network("198.18.7.0/24")
    assert (network.host_address, network.pod_address) == (IPv4Address("198.18.7.254"), IPv4Address("198.18.7.253"))


def test_servers_are_told_apart_by_their_state_folder(tmp_path: Path) -> None:
    """One folder has one tag, by whatever path it is reached; another folder has another."""
    (tmp_path / "link").symlink_to(tmp_path)
    assert state_tag(tmp_path / "link") == state_tag(tmp_path) != state_tag(tmp_path / "other")


def test_pods_may_be_found_while_labs_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread finds a pod for the first time in the middle of a look at what was seen before."""
    pods = Pods("owner", IPv4Network("198.18.0.0/16"), lab_limits())

    class LookedAt(str):
        __slots__ = ()

        def __hash__(self) -> int:
            pods._seen["found meanwhile"] = Pod(2, 2, None)
            return super().__hash__()

    monkeypatch.setattr(pods, "_all", lambda: [("lab", Pod(1, 1, None))])
    pods._seen = {LookedAt("lab"): Pod(1, 1, None), "gone": Pod(3, 3, None)}
    assert pods.lab_ids() == {"lab"}
    assert "gone" not in pods._seen


def test_process_of_the_host_belongs_to_no_pod() -> None:
    """Uid ranges of pods neither overlap nor contain ordinary users."""
    assert processes.read_process(os.getpid()) is None
    assert processes.first_id(2) - processes.first_id(1) == processes.IDS_PER_POD
    assert processes.first_id(processes.MAX_PODS + 1) < 2**31


def test_chosen_image_without_netlab_is_refused(tmp_path: Path) -> None:
    """A REMOTE_LAB_IMAGE that cannot run labs stops the start and says what it lacks."""
    with pytest.raises(ImageUnavailable, match="no root file system with netlab"):
        Images(tmp_path, chosen=str(tmp_path)).ensure()
