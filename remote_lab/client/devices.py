"""A device of a running lab, as tests see it: netlab's own description, and what tools need of it to log in.

No request is made here, and no file of another tool is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from remote_lab.client.platforms import Platform, platform_of

SSH_PORT = 22


@dataclass(frozen=True)
class DeviceInfoDto:
    """A device of a running lab. Its properties are read from `raw` and never raise, whatever it holds."""

    name: str
    """The node's name in the topology."""
    raw: dict[str, Any]
    """The node as `netlab inspect --node NAME` prints it."""
    key_file: Path | None = field(default=None, compare=False)
    """The lab's private ssh key, readable by its owner alone; None when the lab has none. It goes with the client."""

    @property
    def host(self) -> str | None:
        """The address or name to connect to; None when netlab gave the device none.

        It is where netlab itself connects (`ansible_host`), else the IPv4, else the IPv6 management address. For a
        container that netlab enters by Docker, the management address comes first: `ansible_host` is then the name
        of a container, which nobody but Docker knows.
        """
        connect_to = list(_texts(self.raw, "ansible_host"))
        management = [address.split("/")[0] for address in _texts(_get(self.raw, "mgmt"), "ipv4", "ipv6")]
        by_docker = _get(self.raw, "ansible_connection") == "docker"
        found = management + connect_to if by_docker else connect_to + management
        return found[0] if found else None

    @property
    def port(self) -> int:
        """The port to connect to by ssh: a forwarded one where there is one (`ansible_port`), else 22."""
        for key in ("ansible_port", "ansible_ssh_port"):
            value = _get(self.raw, key)
            if isinstance(value, int | str) and not isinstance(value, bool):
                text = str(value).strip()
                if text.isascii() and text.isdecimal() and len(text) <= 5 and 0 < int(text) < 65536:
                    return int(text)
        return SSH_PORT

    @property
    def username(self) -> str | None:
        """Whom to log in as; None when netlab does not say."""
        return next(_texts(self.raw, "ansible_user", "ansible_ssh_user"), None)

    @property
    def password(self) -> str | None:
        """The password of `username`; None when netlab names none, as where the key is the way in."""
        return next(_texts(self.raw, "ansible_ssh_pass", "ansible_password", "ansible_ssh_password"), None)

    @property
    def platform(self) -> Platform:
        """What netlab, Ansible, netmiko, scrapli, NAPALM and pyATS call this kind of device."""
        # `netlab inspect` leaves out the device type itself (26.10, outputs/common.py: topo_to_host_skip).
        names = list(_texts(self.raw, "device", "netlab_device_type", "ansible_network_os"))
        platform = platform_of(names[0] if names else "unknown")
        network_os = next(_texts(self.raw, "ansible_network_os"), platform.ansible_network_os)
        return replace(platform, ansible_network_os=network_os)


def names_a_key(device: DeviceInfoDto) -> bool:
    """Tell whether netlab logs in by a private key; the path that it names is one of the lab host's."""
    return any(_texts(device.raw, "ansible_ssh_private_key_file"))


def _get(value: object, key: str) -> object:
    return value.get(key) if isinstance(value, dict) else None


def _texts(value: object, *keys: str) -> Iterator[str]:
    """Yield what stands under these keys and is a text or a number; YAML reads a password like 1234 as a number."""
    for key in keys:
        found = _get(value, key)
        if isinstance(found, int | float) and not isinstance(found, bool):
            found = str(found)
        if isinstance(found, str) and found.strip():
            yield found
