"""Devices that a client hands out are logged in to with nothing but their properties: real FRR, real tools."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Server, running, wait_until
from netmiko import ConnectHandler
from scrapli import AuthOptions, Cli

from remote_lab.client import DeviceInfoDto, RemoteLabClient
from remote_lab.client.inventory import ssh_command, write_inventory

pytestmark = pytest.mark.lab

NEIGHBORS = 'vtysh -c "show ip ospf neighbor"'
FULL_SECONDS = 60.0


TOPOLOGY = """
nodes:
  r1: { device: frr, module: [ ospf ] }
  r2: { device: frr, module: [ ospf ] }
  h1: { device: linux }
links: [ r1-r2, r1-h1 ]
"""


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, DeviceInfoDto]]:
    """Two routers that have found each other and a host, as the client hands them out."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "demo.yml").write_text(TOPOLOGY)
    with running(Server(folder / "state", PROVIDER="netns")) as server, RemoteLabClient(server.url) as client:
        devices = {device.name: device for device in client.acquire(folder / "demo.yml", reuse=False)}
        command = ["bash", "-c", f"{ssh_command(devices['r1'])} {NEIGHBORS!r}"]
        wait_until(lambda: "Full" in output_of(command), "r1 and r2 are neighbors", FULL_SECONDS)
        yield devices


@pytest.fixture
def r1(devices: dict[str, DeviceInfoDto]) -> DeviceInfoDto:
    return devices["r1"]


def output_of(command: list[Any]) -> str:
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=30, stdin=subprocess.DEVNULL, cwd="/"
    )
    return result.stdout


def test_device_says_how_to_log_in(r1: DeviceInfoDto) -> None:
    """A router in namespaces has an address, a user, a password and the lab's key."""
    assert (r1.port, r1.username, r1.password) == (22, "root", "admin")
    assert r1.host == r1.raw["mgmt"]["ipv4"]
    assert r1.key_file is not None
    assert r1.key_file.read_text().startswith("-----BEGIN OPENSSH PRIVATE KEY-----")


@pytest.mark.parametrize("way", ["password", "key"])
def test_netmiko_logs_in(r1: DeviceInfoDto, way: str) -> None:
    """netmiko sees the OSPF neighbor, by password and by key."""
    secret = {"password": r1.password} if way == "password" else {"use_keys": True, "key_file": str(r1.key_file)}
    with ConnectHandler(
        device_type=r1.platform.netmiko, host=r1.host, port=r1.port, username=r1.username, **secret
    ) as connection:
        assert "Full/" in connection.send_command(NEIGHBORS)


def test_every_kind_of_device_says_its_password(devices: dict[str, DeviceInfoDto]) -> None:
    """A Linux host has the password that it says, and not the one netlab has for virtual machines."""
    host = devices["h1"]
    with ConnectHandler(
        device_type=host.platform.netmiko, host=host.host, username=host.username, password=host.password
    ) as connection:
        assert connection.send_command("hostname").strip() == "h1"


@pytest.mark.parametrize("way", ["password", "key"])
def test_scrapli_logs_in(r1: DeviceInfoDto, way: str) -> None:
    """scrapli sees the OSPF neighbor, by password and by key."""
    assert r1.host is not None
    secret = {"password": r1.password} if way == "password" else {"private_key_path": str(r1.key_file)}
    with Cli(
        r1.host,
        port=r1.port,
        definition_file_or_name=r1.platform.scrapli,
        auth_options=AuthOptions(username=r1.username, **secret),
    ) as connection:
        assert "Full/" in connection.send_input(NEIGHBORS).result


def test_ssh_logs_in_with_the_ssh_config(r1: DeviceInfoDto, tmp_path: Path) -> None:
    """Plain ssh needs nothing but the file and the device's name."""
    write_inventory("ssh_config", [r1], tmp_path / "ssh_config")
    assert "Full/" in output_of(["ssh", "-o", "BatchMode=yes", "-F", tmp_path / "ssh_config", "r1", NEIGHBORS])


def test_ansible_logs_in_with_the_inventory(r1: DeviceInfoDto, tmp_path: Path) -> None:
    """An ad hoc command of Ansible reaches the router over the inventory alone."""
    write_inventory("ansible", [r1], tmp_path / "hosts.json")
    ansible = Path(sys.executable).parent / "ansible"
    command = [ansible, "r1", "-i", tmp_path / "hosts.json", "-m", "raw", "-a", NEIGHBORS]
    assert "Full/" in output_of(command)
