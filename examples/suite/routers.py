"""Talking to the routers of a lab: with netmiko, and nothing but what the device says of itself."""

import json
import time

from netmiko import ConnectHandler


def vtysh(device, command):
    """What FRR answers to a `show ... json`."""
    login = {
        "device_type": device.platform.netmiko,
        "host": device.host,
        "port": device.port,
        "username": device.username,
        "password": device.password,
    }
    with ConnectHandler(**login) as connection:
        return json.loads(connection.send_command(f"vtysh -c '{command} json'"))


def wait_for(condition, seconds=60):
    """Ask every second until something holds; routing protocols take a moment after the boot."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"still not so after {seconds} s"
        time.sleep(1)
    return result
