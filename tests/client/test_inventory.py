from __future__ import annotations

import dataclasses
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from nornir.core.inventory import Host
from nornir.plugins.inventory.simple import SimpleInventory

from remote_lab.client.devices import DeviceInfoDto
from remote_lab.client.inventory import KINDS, file_name, ssh_command, write_inventory

PLAIN = {
    "ansible_connection": "ssh",
    "ansible_host": "198.18.1.1",
    "ansible_network_os": "frr",
    "ansible_password": "admin",
    "ansible_ssh_private_key_file": "netns_files/id_ed25519",
    "ansible_user": "root",
    "loopback": {"ipv4": "10.0.0.1/32"},
}
SWITCH = {
    "ansible_connection": "network_cli",
    "ansible_host": "192.168.121.102",
    "ansible_network_os": "eos",
    "ansible_port": 2202,
    "ansible_ssh_pass": "a b'c\"d\\e%f#gé😀",
    "ansible_user": "vagrant",
}
NASTY = ["a\nProxyCommand touch /tmp/x", "a\rb", 'a"b', "a\x00b", "a\u2028b", "-oProxyCommand=x", "${HOME}", "a b", "*"]


def make(name: str = "r1", key_file: Path | None = None, **raw: Any) -> DeviceInfoDto:
    return DeviceInfoDto(name, {**PLAIN, **raw}, key_file=key_file)


def written(kind: str, path: Path, *devices: DeviceInfoDto) -> Path:
    write_inventory(kind, devices, path)
    return path


@pytest.fixture
def pair(tmp_path: Path) -> list[DeviceInfoDto]:
    key_file = tmp_path / "a folder" / "100% key"
    return [make(key_file=key_file), DeviceInfoDto("sw-2", SWITCH, key_file=key_file)]


def test_unknown_kind_is_refused_with_those_there_are(tmp_path: Path) -> None:
    """Asking for another tool's inventory is a ValueError that names what was asked for and what there is."""
    expected = r"'puppet'.*ansible, nornir, ssh_config, pyats"
    with pytest.raises(ValueError, match=expected):
        write_inventory("puppet", [], tmp_path / "file")
    with pytest.raises(ValueError, match=expected):
        file_name("puppet")
    assert list(tmp_path.iterdir()) == []


def test_each_kind_has_a_file_name_of_its_own() -> None:
    """The files of all kinds can lie in one folder."""
    assert len({file_name(kind) for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_file_belongs_to_its_owner_alone(kind: str, tmp_path: Path, pair: list[DeviceInfoDto]) -> None:
    """What holds passwords is written for one reader, over whatever was there, and leaves nothing beside it."""
    path = tmp_path / "new" / "folder" / file_name(kind)
    for _ in range(2):
        umask = os.umask(0)
        try:
            write_inventory(kind, pair, path)
        finally:
            os.umask(umask)
        path.chmod(0o600 if stat.S_IMODE(path.stat().st_mode) == 0o600 else 0o777)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o644)
    assert [found.name for found in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", KINDS)
def test_refusal_leaves_the_file_before_it(kind: str, tmp_path: Path) -> None:
    """A refused value leaves the old file as it was."""
    path = written(kind, tmp_path / "file", make())
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"host of device 'r1'"):
        write_inventory(kind, [make(ansible_host="a\nb")], path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", KINDS)
def test_devices_without_an_address_are_left_out(kind: str, tmp_path: Path) -> None:
    """Nobody can log in to a device without an address, so it is in no inventory."""
    path = written(kind, tmp_path / "file", make(), DeviceInfoDto("hidden", {"id": 3}))
    assert "r1" in path.read_text()
    assert "hidden" not in path.read_text()


@pytest.mark.parametrize("value", NASTY)
@pytest.mark.parametrize("kind", KINDS)
def test_names_and_addresses_stay_what_they_are(kind: str, value: str, tmp_path: Path) -> None:
    """A name, host or user that a tool could take for more is refused, with the value."""
    for device in (make(name=value), make(ansible_host=value), make(ansible_user=value)):
        with pytest.raises(ValueError, match=r"cannot stand in an inventory") as refusal:
            write_inventory(kind, [device], tmp_path / "file")
        assert repr(value) in str(refusal.value)


def test_ssh_reads_the_ssh_config(tmp_path: Path, pair: list[DeviceInfoDto]) -> None:
    """`ssh -F` finds each device by its name, with address, port, user and key, and asks for no host key."""
    path = written("ssh_config", tmp_path / "ssh_config", *pair)
    r1, sw2 = ssh_options(path, "r1"), ssh_options(path, "sw-2")
    assert (r1["hostname"], r1["port"], r1["user"]) == ("198.18.1.1", "22", "root")
    assert (sw2["hostname"], sw2["port"], sw2["user"]) == ("192.168.121.102", "2202", "vagrant")
    for found in (r1, sw2):
        # ssh -G prints the file before it expands percent signs.
        assert found["identityfile"].replace("%%", "%") == str(pair[0].key_file)
        assert (found["stricthostkeychecking"], found["userknownhostsfile"]) == ("false", "/dev/null")


def test_ssh_config_takes_old_algorithms_and_nothing_else(tmp_path: Path) -> None:
    """What netlab passes to ssh for old devices is in the file; an option that starts programs is not."""
    arguments = "-o KexAlgorithms=+diffie-hellman-group14-sha1 -o ProxyCommand=evil -o HostKeyAlgorithms=+ssh-rsa"
    device = make(netlab_ssh_args=arguments)
    path = written("ssh_config", tmp_path / "ssh_config", device)
    found = ssh_options(path, "r1")
    assert "diffie-hellman-group14-sha1" in found["kexalgorithms"]
    assert "ssh-rsa" in found["hostkeyalgorithms"].split(",")
    assert "evil" not in path.read_text()
    assert "-o KexAlgorithms=+diffie-hellman-group14-sha1" in ssh_command(device)
    assert "evil" not in ssh_command(device)


def test_ssh_config_keeps_ipv6_scopes(tmp_path: Path) -> None:
    """A percent sign of an address is not taken for one of ssh's tokens."""
    path = written("ssh_config", tmp_path / "ssh_config", make(ansible_host="fe80::1%eth0"))
    assert "HostName fe80::1%%eth0" in path.read_text()
    assert ssh_options(path, "r1")["hostname"] == "fe80::1%eth0"


def test_ssh_command_is_a_line_for_the_shell(tmp_path: Path) -> None:
    """The line to paste has key, port and user, quoted; without an address there is none."""
    key_file = tmp_path / "a folder" / "key"
    command = ssh_command(make(key_file=key_file, ansible_port=2222))
    assert command.startswith(f"ssh -i '{key_file}' -p 2222 ")
    assert command.endswith(" root@198.18.1.1")
    with pytest.raises(ValueError, match="'r9' has no address"):
        ssh_command(DeviceInfoDto("r9", {}))


def test_ansible_reads_the_inventory(tmp_path: Path, pair: list[DeviceInfoDto]) -> None:
    """`ansible-inventory` finds each device in the group of its type, with the way in and what netlab says of it."""
    with_key, by_password = pair[0], dataclasses.replace(pair[1], key_file=None)
    hosts, groups = ansible_inventory(written("ansible", tmp_path / file_name("ansible"), with_key, by_password))
    assert {group: groups[group]["hosts"] for group in ("frr", "eos")} == {"frr": ["r1"], "eos": ["sw-2"]}
    r1, sw2 = hosts["r1"], hosts["sw-2"]
    assert (r1["ansible_host"], r1["ansible_user"]) == ("198.18.1.1", "root")
    assert r1["ansible_ssh_private_key_file"] == str(with_key.key_file)
    assert "ansible_password" not in r1
    assert "ansible_ssh_private_key_file" not in sw2
    assert (r1["ansible_connection"], r1["loopback"]) == ("ssh", {"ipv4": "10.0.0.1/32"})
    assert (sw2["ansible_port"], sw2["ansible_network_os"]) == (2202, "eos")
    assert sw2["ansible_password"] == SWITCH["ansible_ssh_pass"]


def test_ansible_runs_nothing_that_a_topology_says(tmp_path: Path) -> None:
    """Templates and options that start programs here don't get into Ansible's inventory, or are refused by name."""
    evil = "{{ lookup('pipe', 'touch /tmp/evil') }}"
    device = make(
        note=evil,
        deep={"list": [evil, "kept"], evil: 1},
        ansible_connection="local",
        ansible_ssh_args="-o ProxyCommand=evil",
        ansible_ssh_executable="/tmp/evil",
        **{"not-a-name": 1},
    )
    path = written("ansible", tmp_path / "ansible.json", device)
    assert "evil" not in path.read_text()
    found = ansible_inventory(path)[0]["r1"]
    assert found["deep"] == {"list": ["kept"]}
    assert "ansible_connection" not in found
    for raw in ({"ansible_network_os": evil}, {"ansible_password": evil}):
        with pytest.raises(ValueError, match=r"of device 'r1'.* holds '\{\{': Ansible would run it") as refusal:
            write_inventory("ansible", [make(**raw)], path)
        assert ("lookup" in str(refusal.value)) == ("ansible_password" not in raw)


def test_ansible_enters_containers_by_their_name(tmp_path: Path) -> None:
    """Where netlab has Ansible use Docker, the host is the container."""
    device = make(ansible_connection="docker", ansible_host="clab-lab-r1", mgmt={"ipv4": "192.168.121.101"})
    path = written("ansible", tmp_path / "ansible.json", device)
    assert json.loads(path.read_text())["all"]["hosts"]["r1"]["ansible_host"] == "clab-lab-r1"


def test_ansible_group_never_hides_a_device(tmp_path: Path) -> None:
    """A device that is called like a device type stays a host; hyphens become what Ansible takes."""
    devices = [make(name="frr"), make(name="r2", netlab_device_type="vjunos-router")]
    hosts, groups = ansible_inventory(written("ansible", tmp_path / "ansible.json", *devices))
    assert (set(hosts), groups["vjunos_router"]["hosts"]) == ({"frr", "r2"}, ["r2"])


def test_nornir_reads_its_hosts(tmp_path: Path, pair: list[DeviceInfoDto]) -> None:
    """SimpleInventory loads the file, and netmiko, scrapli and NAPALM find their parameters."""
    hosts = nornir_hosts(written("nornir", tmp_path / file_name("nornir"), *pair))
    r1, sw2 = hosts["r1"], hosts["sw-2"]
    key_file = str(pair[0].key_file)
    netmiko = r1.get_connection_parameters("netmiko")
    assert (netmiko.hostname, netmiko.port, netmiko.username) == ("198.18.1.1", 22, "root")
    assert (netmiko.platform, netmiko.extras) == ("linux", {"use_keys": True, "key_file": key_file})
    scrapli = r1.get_connection_parameters("scrapli")
    assert (scrapli.platform, scrapli.password) == ("generic", "admin")
    assert scrapli.extras == {"auth_strict_key": False, "auth_private_key": key_file}
    assert sw2.get_connection_parameters("scrapli").platform == "arista_eos"
    napalm = sw2.get_connection_parameters("napalm")
    assert (napalm.platform, napalm.password) == ("eos", SWITCH["ansible_ssh_pass"])
    assert napalm.extras == {"optional_args": {"key_file": key_file, "use_keys": True, "port": 443}}
    assert "napalm" not in r1.connection_options
    assert r1["loopback"] == {"ipv4": "10.0.0.1/32"}


def test_nornir_gets_everything_that_netlab_says(tmp_path: Path) -> None:
    """Texts that YAML would not take as they are arrive as they were."""
    texts = ["\x7f\x85", "\u2028", "\ufeff", "😀", "\t\n\\", "{{ x }}", "1e3", "~"]
    hosts = nornir_hosts(written("nornir", tmp_path / "hosts.yaml", make(texts=texts, empty=None)))
    assert (hosts["r1"]["texts"], hosts["r1"]["empty"]) == (texts, None)


def test_pyats_testbed(tmp_path: Path, pair: list[DeviceInfoDto]) -> None:
    """The testbed names of each device its os, its credentials and how to connect by ssh."""
    path = written("pyats", tmp_path / file_name("pyats"), *pair)
    testbed = yaml.safe_load(path.read_text())
    r1, sw2 = testbed["devices"]["r1"], testbed["devices"]["sw-2"]
    assert (r1["os"], sw2["os"]) == ("linux", "eos")
    assert r1["credentials"] == {"default": {"username": "root", "password": "admin"}}
    assert sw2["credentials"]["default"]["password"] == SWITCH["ansible_ssh_pass"]
    connection = r1["connections"]["cli"]
    assert (connection["protocol"], connection["ip"], connection["port"]) == ("ssh", "198.18.1.1", 22)
    assert f"-i '{pair[0].key_file}'" in connection["ssh_options"]


@pytest.mark.parametrize("password", ["%CLI{touch /tmp/x}", "a%ENV{HOME}", "%{testbed.name}"])
def test_pyats_markup_is_refused(password: str, tmp_path: Path) -> None:
    """A password that pyATS would run or replace is refused without being printed."""
    with pytest.raises(ValueError, match=r"password of device 'r1' holds '%\w*\{'") as refusal:
        write_inventory("pyats", [make(ansible_password=password)], tmp_path / "testbed.yaml")
    assert password not in str(refusal.value)


def ssh_options(config: Path, name: str) -> dict[str, str]:
    """What `ssh -G` says it would do."""
    output = subprocess.run(
        ["ssh", "-G", "-F", config, name], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    return {key: value for key, _, value in (line.partition(" ") for line in output.splitlines())}


def ansible_inventory(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The variables of all hosts and the groups, as Ansible reads them; a warning of its is a failure."""
    tool = shutil.which("ansible-inventory", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert tool is not None
    environment = {"PATH": os.environ["PATH"], "HOME": str(path.parent), "LANG": "C.UTF-8", "ANSIBLE_NOCOLOR": "1"}
    result = subprocess.run(
        [tool, "-i", path, "--list"], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    assert result.stderr == ""
    groups = json.loads(result.stdout)
    return groups.pop("_meta")["hostvars"], groups


def nornir_hosts(path: Path) -> dict[str, Host]:
    """The hosts as Nornir's own inventory loads them."""
    absent: Iterable[str] = ("groups.yaml", "defaults.yaml")
    group_file, defaults_file = (str(path.parent / name) for name in absent)
    inventory = SimpleInventory(host_file=str(path), group_file=group_file, defaults_file=defaults_file)
    return dict(inventory.load().hosts)
