"""What the command of `remote-lab run` is given: files about its lab, and the variables that name them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from remote_lab.client import DeviceInfoDto
from remote_lab.client.inventory import file_name, write_inventory

VARIABLES = {
    "ansible": ("REMOTE_LAB_INVENTORY", "ANSIBLE_INVENTORY"),
    "nornir": ("REMOTE_LAB_NORNIR",),
    "ssh_config": ("REMOTE_LAB_SSH_CONFIG",),
    "pyats": ("REMOTE_LAB_PYATS",),
}
"""Of each kind of inventory: the variables that name its file."""

DEVICES_FILE = "devices.json"


def hand_over(
    devices: list[DeviceInfoDto], kinds: Sequence[str], folder: Path, refused: Callable[[str, ValueError], None]
) -> dict[str, str]:
    """Write the files into a folder that only its user can read; return the variables that name them.

    `refused` is told of a kind of inventory that cannot say what a device is called, and why.
    """
    devices_file = folder / DEVICES_FILE
    devices_file.touch(mode=0o600)
    devices_file.write_text(json.dumps([describe(device) for device in devices], indent=2) + "\n")
    variables = {"REMOTE_LAB_DEVICES": str(devices_file)}
    for kind in kinds:
        # A folder of its own: the file's name is what its tool looks for.
        path = folder / kind / file_name(kind)
        try:
            write_inventory(kind, devices, path)
        except ValueError as error:
            refused(kind, error)
        else:
            variables |= dict.fromkeys(VARIABLES[kind], str(path))
    return variables


def describe(device: DeviceInfoDto) -> dict[str, object]:
    """A device as `REMOTE_LAB_DEVICES` has it: what is needed to log in, and what tools call its platform."""
    return {
        "name": device.name,
        "host": device.host,
        "port": device.port,
        "username": device.username,
        "password": device.password,
        "key_file": None if device.key_file is None else str(device.key_file),
        "platform": asdict(device.platform),
    }
