from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path
from typing import Any

import netsim
import pytest
import scrapli
import yaml
from harness import ROOT
from napalm._SUPPORTED_DRIVERS import SUPPORTED_DRIVERS
from netmiko.ssh_dispatcher import CLASS_MAPPER

from remote_lab.client.devices import DeviceInfoDto
from remote_lab.client.platforms import Platform, platform_of

NETLAB_DEVICES = {path.stem: path for path in Path(netsim.__path__[0], "devices").glob("*.yml")}
NO_DEVICES = {"none", "unknown"}
"""Stand-ins of netlab for devices that are not there or that it knows nothing of."""
UNICON_PLUGINS = {
    *("aireos", "apic", "asa", "cheetah", "cimc", "comware", "confd", "dnos10", "dnos6", "eos", "fxos"),
    *("gaia", "generic", "hvrp", "ios", "iosxe", "iosxr", "ironware", "ise", "junos", "linux", "nd"),
    *("nso", "nxos", "ons", "sdwan", "slxos", "sonic", "sros", "staros", "vos", "windows"),
}
"""Folders of unicon.plugins 26.9; pyATS itself is too large to be installed for a list of names."""


def device(**raw: Any) -> DeviceInfoDto:
    return DeviceInfoDto("r1", raw)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(
            {
                "ansible_connection": "ssh",
                "ansible_host": "198.18.1.1",
                "ansible_network_os": "frr",
                "ansible_password": "admin",
                "ansible_ssh_private_key_file": "netns_files/id_ed25519",
                "ansible_user": "root",
                "mgmt": {"ifname": "eth0", "ipv4": "198.18.1.1"},
            },
            ("198.18.1.1", 22, "root", "admin", "frr"),
            id="namespaces",
        ),
        pytest.param(
            {
                "ansible_connection": "network_cli",
                "ansible_host": "192.168.121.101",
                "ansible_network_os": "eos",
                "ansible_ssh_pass": "admin",
                "ansible_user": "admin",
                "hostname": "clab-lab-r1",
                "mgmt": {"ipv4": "192.168.121.101"},
            },
            ("192.168.121.101", 22, "admin", "admin", "eos"),
            id="container with ssh",
        ),
        pytest.param(
            {
                "ansible_connection": "docker",
                "ansible_host": "clab-lab-r1",
                "ansible_network_os": "frr",
                "ansible_user": "root",
                "mgmt": {"ipv4": "192.168.121.101"},
            },
            ("192.168.121.101", 22, "root", None, "frr"),
            id="container entered by Docker",
        ),
        pytest.param(
            {
                "ansible_connection": "httpapi",
                "ansible_host": "192.168.121.103",
                "ansible_network_os": "fortinet.fortios.fortios",
                "ansible_password": "admin",
                "ansible_ssh_pass": "other",
                "ansible_user": "admin",
                "netlab_device_type": "fortios",
            },
            ("192.168.121.103", 22, "admin", "other", "fortios"),
            id="device with a password for ssh and one for its API",
        ),
        pytest.param(
            {
                "ansible_host": "127.0.0.1",
                "ansible_network_os": "ios",
                "ansible_port": 2201,
                "ansible_ssh_pass": "vagrant",
                "ansible_user": "vagrant",
                "mgmt": {"ipv4": "192.168.121.101"},
                "netlab_device_type": "csr",
            },
            ("127.0.0.1", 2201, "vagrant", "vagrant", "csr"),
            id="virtual machine behind a forwarded port",
        ),
    ],
)
def test_way_into_a_device_is_read_from_what_netlab_says(raw: dict[str, Any], expected: tuple[Any, ...]) -> None:
    """Host, port, username, password and kind come from the dictionary of `netlab inspect`, whatever the provider."""
    found = device(**raw)
    assert (found.host, found.port, found.username, found.password, found.platform.netlab) == expected


@pytest.mark.parametrize(
    ("raw", "host"),
    [
        ({"mgmt": {"ipv4": "192.0.2.1", "ipv6": "2001:db8::1"}}, "192.0.2.1"),
        ({"mgmt": {"ipv6": "2001:db8::1/64"}}, "2001:db8::1"),
        ({"ansible_host": "", "mgmt": {"ipv4": "192.0.2.1"}}, "192.0.2.1"),
        ({"mgmt": {"ifname": "eth0"}}, None),
        ({}, None),
    ],
)
def test_host_falls_back_to_the_management_address(raw: dict[str, Any], host: str | None) -> None:
    """Without ansible_host the IPv4, then the IPv6 management address is the host, without prefix; else None."""
    assert device(**raw).host == host


@pytest.mark.parametrize("odd", [None, [], {}, "", " ", "x", -1, 0, 1.5, True, 10**9, "70000", "22 ", "²", object()])
def test_odd_descriptions_raise_nothing(odd: Any) -> None:
    """Whatever stands under the keys, or instead of the description, properties have a value of their type."""
    keys = ["ansible_host", "ansible_port", "ansible_ssh_port", "ansible_user", "ansible_ssh_pass", "ansible_password"]
    keys += ["mgmt", "device", "netlab_device_type", "ansible_network_os", "ansible_connection"]
    for found in (device(**dict.fromkeys(keys, odd)), device(mgmt={"ipv4": odd, "ipv6": odd}), DeviceInfoDto("r", odd)):
        assert 0 < found.port < 65536
        assert all(isinstance(text, str | None) for text in (found.host, found.username, found.password))
        assert isinstance(found.platform, Platform)


def test_numbers_are_read_as_texts() -> None:
    """A password or user that YAML made a number of is the text that logs in."""
    found = device(ansible_user=1000, ansible_ssh_pass=1234, ansible_port="2222")
    assert (found.username, found.password, found.port) == ("1000", "1234", 2222)


def test_devices_are_values() -> None:
    """Devices compare by name and description, the key's file aside, and nothing of them can be assigned."""
    found = device(id=1)
    assert found == DeviceInfoDto("r1", {"id": 1}, key_file=Path("/tmp/key"))
    for attribute in ("name", "host", "port", "username", "password", "key_file", "platform"):
        with pytest.raises(AttributeError):
            setattr(found, attribute, "other")


@pytest.mark.parametrize("name", sorted(NETLAB_DEVICES.keys() - NO_DEVICES))
def test_platforms_are_called_what_the_tools_call_them(name: str) -> None:
    """Each device type of netlab is in the table, and every name in it is known to the installed tool."""
    platform = platform_of(name)
    assert platform.netlab == name
    assert platform.ansible_network_os == network_os_in_netlab(name)
    assert platform.netmiko in {*CLASS_MAPPER, None}
    assert platform.scrapli in {*scrapli_definitions(), None}
    assert platform.napalm in {*SUPPORTED_DRIVERS, None}
    assert platform.pyats in {*UNICON_PLUGINS, None}


@pytest.mark.parametrize("name", sorted(NETLAB_DEVICES.keys() - NO_DEVICES))
def test_platform_is_found_by_what_netlab_inspect_says(name: str) -> None:
    """`netlab inspect` leaves out the device type; its other names lead to a row with the same names of the tools."""
    raw = {"ansible_network_os": network_os_in_netlab(name)}
    if said := group_variable(name, "netlab_device_type"):
        raw["netlab_device_type"] = said
    found, expected = device(**raw).platform, platform_of(name)
    # netlab 26.10 says no more of an ioll2 on libvirt, for example, than that it is some IOS.
    if not said and network_os_in_netlab(name) in {"ios", "junos", "iosxr"}:
        expected = platform_of(str(network_os_in_netlab(name)))
    assert dataclasses.replace(found, netlab="") == dataclasses.replace(expected, netlab="")


@pytest.mark.parametrize("name", [path.stem for path in Path(netsim.__path__[0], "daemons").glob("*.yml")])
def test_daemons_are_logged_in_to_like_the_linux_they_run_on(name: str) -> None:
    """Each daemon of netlab has a row of its own, with the names of a Linux host."""
    raw = {"ansible_network_os": "linux", "netlab_device_type": name}
    assert device(**raw).platform == dataclasses.replace(platform_of("linux"), netlab=name)


def test_table_of_the_documentation_is_the_one_in_use() -> None:
    """docs/devices.rst has a row for each device type and daemon, with the names that a device has."""
    lines = (ROOT / "docs" / "devices.rst").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("netlab  "))
    columns = [(found.start(), found.end()) for found in re.finditer("=+", lines[start + 1])]
    documented = {}
    for line in itertools.takewhile(lambda line: not line.startswith("="), lines[start + 2 :]):
        kinds, *names = (line[begin:end].strip() for begin, end in columns)
        for kind in re.findall("``(.+?)``", kinds):
            documented[kind] = Platform(kind, *(None if name == "\\-" else name for name in names))
    daemons = {path.stem for path in Path(netsim.__path__[0], "daemons").glob("*.yml")}
    expected = (NETLAB_DEVICES.keys() | daemons) - NO_DEVICES
    assert documented == {name: platform_of(name) for name in expected}


def test_unknown_device_type_has_its_own_name_alone() -> None:
    """A device type that no row is for is called what it is, and has no names of tools."""
    assert platform_of("toaster") == Platform("toaster", None, None, None, None, None)
    assert device().platform == Platform("unknown")
    assert device(ansible_network_os="acme.os.os").platform == Platform("acme.os.os", "acme.os.os")


def test_network_os_of_a_topology_wins() -> None:
    """A topology that names the collection's plugin in full gets that name, and the tools' names stay."""
    found = device(netlab_device_type="csr", ansible_network_os="cisco.ios.ios").platform
    assert found == dataclasses.replace(platform_of("csr"), ansible_network_os="cisco.ios.ios")


def group_variable(name: str, variable: str) -> str | None:
    """What netlab's device files say of a type, or of the type it is made from."""
    text = yaml.safe_load(NETLAB_DEVICES[name].read_text()) or {}
    kinds = [text, *(text[provider] for provider in ("clab", "libvirt") if isinstance(text.get(provider), dict))]
    for kind in kinds:
        if found := (kind.get("group_vars") or {}).get(variable):
            return str(found)
    return group_variable(text["parent"], variable) if "parent" in text else None


def network_os_in_netlab(name: str) -> str | None:
    return group_variable(name, "ansible_network_os")


def scrapli_definitions() -> set[str]:
    found = {path.stem for path in Path(scrapli.__path__[0], "definitions").glob("*.yaml")}
    assert re.match(r"20\d\d\.", scrapli.__version__)
    assert len(found) > 30
    return found
