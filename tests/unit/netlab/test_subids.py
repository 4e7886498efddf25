"""What keeps an ordinary user from labs: each thing with the command that helps."""

from __future__ import annotations

import os
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from remote_lab.netlab.limits import lab_limits
from remote_lab.netlab.management import NoFreeNetwork
from remote_lab.netlab.rootless import channel, subids, user_pods


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(subids, "user_name", lambda: "lena")
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    return tmp_path


def write(etc: Path, uids: str, gids: str | None = None) -> None:
    (etc / "subuid").write_text(uids)
    (etc / "subgid").write_text(uids if gids is None else gids)


@pytest.mark.parametrize("line", ["lena:200000:65536\n", "1234:200000:65536", "lena:1:9\nlena:200000:70000\n"])
def test_range_is_found_by_name_or_number(etc: Path, line: str) -> None:
    """The first that is large enough counts; others' and broken lines do not."""
    write(etc, f"anna:100000:65536\nlena\nlena:x:65536\n{line}")
    assert subids.find(etc) == subids.SubIds(200000, 200000)


@pytest.mark.parametrize(
    ("gids", "first_gid"), [("", 100000), ("anna:100000:65536\n", 165536), ("lena:100000:65535\n", 165535)]
)
def test_range_that_is_missing_is_given_by_a_command(etc: Path, gids: str, first_gid: int) -> None:
    """The command takes ranges that nobody has yet."""
    write(etc, "anna:100000:65536\nlena:300000:65536\n", gids)
    (lack,) = [one for one in subids.lacks(etc) if one.name == "subordinate ids"]
    assert "user lena has no 65536 subordinate uids and gids" in lack.text
    gid_range = f"{first_gid}-{first_gid + 65535}"
    assert lack.remedy == f"sudo usermod --add-subuids 365536-431071 --add-subgids {gid_range} lena"


def test_ubuntu_and_debian_switches_are_named(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kernel setting that takes user namespaces from ordinary users, with the command that changes it."""
    write(etc, "lena:200000:65536\n")
    switch = etc / "switch"
    switch.write_text("0\n")
    monkeypatch.setattr(subids, "_DEBIAN_SWITCH", switch)
    assert any("kernel.unprivileged_userns_clone=1" in lack.remedy for lack in subids.lacks(etc))
    switch.write_text("1\n")
    monkeypatch.setattr(subids, "_UBUNTU_SWITCH", switch)
    assert "kernel.apparmor_restrict_unprivileged_userns=0" in (subids.apparmor_remedy() or "")
    switch.write_text("0\n")
    assert subids.apparmor_remedy() is None


def test_addresses_of_devices_do_not_overlap() -> None:
    """Each network of the pool has addresses of its own in 127.0.0.0/8, and no network more than there are."""
    networks = list(user_pods.free_networks(IPv4Network("198.18.0.0/22")))
    assert {network.number for network in networks} <= {1, 2, 3}
    assert channel.forward_address(IPv4Address("198.18.3.7")) == IPv4Address("127.18.3.7")


def test_spare_leaves_the_last_addresses_to_labs() -> None:
    """Where a pool has no more networks than shall be left to labs, none is claimed for what is no lab yet."""
    pods = user_pods.UserPods("owner", IPv4Network("198.18.0.0/22"), lab_limits())
    with pytest.raises(NoFreeNetwork):
        pods.claim("spare", leave_free=3)
