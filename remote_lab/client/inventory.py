"""The inventories of other tools, written from the devices of a lab: Ansible, Nornir, ssh and pyATS.

Names and values come from a topology, which anybody may have written, and some of these files run what they hold:
Ansible renders templates, pyATS runs `%CLI{...}`, a line more in an ssh_config is an option more. What could say more
than it should is refused by name. No request is made here, and no YAML is needed: JSON is YAML.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from remote_lab.client.devices import DeviceInfoDto

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_HOST = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:%-]*")
_USERNAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+$-]*")
_KEY_FILE = re.compile(r"/[^\"\\$\x00-\x1f\x7f]*")
_ANSIBLE_TEMPLATE = re.compile(r"\{\{|\{%|\{#")
_PYATS_MARKUP = re.compile(r"%[A-Za-z_]*\{")
# YAML reads these as line breaks, or not at all (YAML 1.1, 5.1 and 5.4).
_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_SSH_OPTION = re.compile(r"-o\s+(\w+Algorithms|PubkeyAcceptedKeyTypes|Ciphers|MACs)=([+^-]?[\w@.,-]+)(?!\S)")

_NO_HOST_KEYS = {"StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null", "LogLevel": "ERROR"}
"""The devices of the next lab have the same addresses and other host keys."""
_NO_HOST_KEYS_FLAGS = " ".join(f"-o {option}={value}" for option, value in _NO_HOST_KEYS.items())
_ANSIBLE_CONNECTIONS = frozenset(
    f"{collection}{plugin}"
    for collection, plugins in (
        ("", ("ssh", "paramiko", "paramiko_ssh", "docker", "network_cli", "netconf", "httpapi")),
        ("ansible.netcommon.", ("network_cli", "netconf", "httpapi", "libssh")),
        ("community.docker.", ("docker",)),
    )
    for plugin in plugins
)
"""Those that netlab uses, under all their names; `local` would run the tasks here."""
_ANSIBLE_KEPT = frozenset(
    f"ansible_{name}"
    for name in (
        *("connection", "become", "become_method", "become_password"),
        *("httpapi_port", "httpapi_use_ssl", "httpapi_validate_certs", "python_interpreter"),
    )
)
"""What may be said of Ansible itself beside the way in: `ansible_ssh_args`, for example, can start programs here."""
_NAPALM_PORTS = {"eos": 443, "nxos": 443, "iosxr_netconf": 830}
"""The drivers of NAPALM that do not log in where ssh does."""


def write_inventory(kind: str, devices: Iterable[DeviceInfoDto], path: Path) -> None:
    """Write the inventory of a tool, readable by its owner alone, in one step: it is there as a whole or not at all.

    Devices without an address are left out. The folder is made when it is missing.

    Raises ValueError for a kind that is none of `KINDS`, and for a name or value that the tool would take for more
    than it is; OSError when the file cannot be written.
    """
    text = _writer(kind)([device for device in devices if device.host is not None])
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(scratch).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(scratch).unlink()
        raise


def file_name(kind: str) -> str:
    """Return the name that the file of this kind gets where nobody asks for another; ValueError as above."""
    _writer(kind)
    return _FILE_NAMES[kind]


def ssh_command(device: DeviceInfoDto) -> str:
    """Return the line that logs in to a device by ssh, for people to paste into a shell.

    Raises ValueError for a device without an address, and for values that ssh would take for more than they are.
    """
    if device.host is None:
        raise ValueError(f"Device {device.name!r} has no address to log in to.")
    host, username, key_file = _checked(device)
    words = ["ssh", *(["-i", key_file] if key_file else []), "-p", str(device.port), *_NO_HOST_KEYS_FLAGS.split()]
    words += [word for option, value in _algorithms(device).items() for word in ("-o", f"{option}={value}")]
    return shlex.join([*words, f"{username}@{host}" if username else host])


def _writer(kind: str) -> Callable[[list[DeviceInfoDto]], str]:
    if kind not in _WRITERS:
        raise ValueError(f"There is no inventory of the kind {kind!r}. Ask for one of: {', '.join(KINDS)}.")
    return _WRITERS[kind]


def _ansible(devices: list[DeviceInfoDto]) -> str:
    """One group for each device type, and of each host what netlab says of it, with the way in as it is from here."""
    hosts: dict[str, Any] = {}
    groups: dict[str, Any] = {}
    for device in devices:
        host, _, key_file = _checked(device)
        way_in = {
            "ansible_host": host,
            "ansible_port": device.port if device.port != 22 else None,
            "ansible_user": device.username,
            # With a password beside the key, Ansible before 2.19 wants sshpass.
            "ansible_password": device.password if key_file is None else None,
            "ansible_ssh_private_key_file": key_file,
            "ansible_ssh_common_args": " ".join(
                [_NO_HOST_KEYS_FLAGS, *(f"-o {option}={value}" for option, value in _algorithms(device).items())]
            ),
            "ansible_network_os": device.platform.ansible_network_os,
        }
        container = device.raw.get("ansible_host")
        if device.raw.get("ansible_connection") == "docker" and _HOST.fullmatch(str(container)):
            way_in["ansible_host"] = container
        for key, value in way_in.items():
            _refuse(device, key, value, _ANSIBLE_TEMPLATE, "Ansible would run it as a template")
        way_in_said = {key: value for key, value in way_in.items() if value is not None}
        hosts[device.name] = _without_templates(_said_to_ansible(device)) | way_in_said
        group = device.platform.netlab.replace("-", "_")
        if re.fullmatch(r"[A-Za-z_]\w*", group, re.ASCII) and group not in ("all", "ungrouped"):
            groups.setdefault(group, {"hosts": {}})["hosts"][device.name] = {}
    children = {group: members for group, members in groups.items() if group not in hosts}
    return _json({"all": {"hosts": hosts, "children": children}})


def _said_to_ansible(device: DeviceInfoDto) -> dict[str, Any]:
    said = {
        key: value
        for key, value in device.raw.items()
        if str(key).isidentifier() and (not str(key).startswith("ansible_") or key in _ANSIBLE_KEPT)
    }
    if said.get("ansible_connection") not in _ANSIBLE_CONNECTIONS:
        said.pop("ansible_connection", None)
    return said


def _algorithms(device: DeviceInfoDto) -> dict[str, str]:
    """Return the options of ssh by which netlab logs in to devices that know old algorithms alone."""
    return dict(_SSH_OPTION.findall(str(device.raw.get("netlab_ssh_args", ""))))


def _nornir(devices: list[DeviceInfoDto]) -> str:
    """The hosts file of SimpleInventory, with options for nornir_netmiko, nornir_scrapli and nornir_napalm."""
    return _json({device.name: _nornir_host(device) for device in devices})


def _nornir_host(device: DeviceInfoDto) -> dict[str, Any]:
    host, _, key_file = _checked(device)
    platform = device.platform
    options: dict[str, Any] = {}
    if platform.netmiko:
        extras: dict[str, Any] = {"use_keys": True, "key_file": key_file} if key_file else {}
        options["netmiko"] = {"platform": platform.netmiko, "extras": extras}
    if platform.scrapli:
        # nornir_scrapli works with scrapli 1, which has no `default`; `generic` is nornir_scrapli's own word.
        name = "generic" if platform.scrapli == "default" else platform.scrapli
        extras = {"auth_strict_key": False, **({"auth_private_key": key_file} if key_file else {})}
        options["scrapli"] = {"platform": name, "extras": extras}
    if platform.napalm:
        arguments: dict[str, Any] = {"key_file": key_file, "use_keys": True} if key_file else {}
        if platform.napalm in _NAPALM_PORTS:
            arguments["port"] = _NAPALM_PORTS[platform.napalm]
        options["napalm"] = {"platform": platform.napalm, "extras": {"optional_args": arguments}}
    return {
        "hostname": host,
        "port": device.port,
        "username": device.username,
        "password": device.password,
        "platform": platform.napalm or platform.netmiko or platform.netlab,
        "data": device.raw,
        "connection_options": options,
    }


def _ssh_config(devices: list[DeviceInfoDto]) -> str:
    return "\n".join(_ssh_host(device) for device in devices)


def _ssh_host(device: DeviceInfoDto) -> str:
    host, username, key_file = _checked(device)
    # ssh expands tokens that begin with a percent sign (ssh_config(5), TOKENS).
    options: dict[str, object] = {"HostName": host.replace("%", "%%"), "Port": device.port}
    if username:
        options["User"] = username
    if key_file:
        options |= {"IdentityFile": f'"{key_file.replace("%", "%%")}"', "IdentitiesOnly": "yes"}
    options |= _NO_HOST_KEYS
    options |= _algorithms(device)
    return f"Host {device.name}\n" + "".join(f"    {option} {value}\n" for option, value in options.items())


def _pyats(devices: list[DeviceInfoDto]) -> str:
    found = {device.name: _pyats_device(device) for device in devices}
    return _json({"testbed": {"name": "remote-lab"}, "devices": found})


def _pyats_device(device: DeviceInfoDto) -> dict[str, Any]:
    host, username, key_file = _checked(device)
    for what, value in (("password", device.password), ("key_file", key_file)):
        _refuse(device, what, value, _PYATS_MARKUP, "pyATS would take it for markup")
    options = _NO_HOST_KEYS_FLAGS + (f" -i {shlex.quote(key_file)}" if key_file else "")
    options += "".join(f" -o {option}={value}" for option, value in _algorithms(device).items())
    credentials = {"username": username or "", "password": device.password or ""}
    return {
        "os": device.platform.pyats or "generic",
        "type": "router" if device.raw.get("role", "router") == "router" else "host",
        "credentials": {"default": credentials},
        "connections": {
            "defaults": {"class": "unicon.Unicon"},
            "cli": {"protocol": "ssh", "ip": host, "port": device.port, "ssh_options": options},
        },
    }


def _checked(device: DeviceInfoDto) -> tuple[str, str | None, str | None]:
    """Return host, username and key file of a device; ValueError when one of them, or its name, is not plain."""
    key_file = None if device.key_file is None else str(device.key_file.absolute())
    values = (("name", device.name, _NAME), ("host", device.host, _HOST), ("username", device.username, _USERNAME))
    for what, value, plain in (*values, ("key_file", key_file, _KEY_FILE)):
        if value is not None and not plain.fullmatch(value):
            raise ValueError(
                f"The {what} of device {device.name!r} is {value!r}, which cannot stand in an inventory: a tool could "
                f"take it for more than a {what}. Give it another in the topology."
            )
    return device.host or "", device.username, key_file


def _refuse(device: DeviceInfoDto, what: str, value: object, dangerous: re.Pattern[str], why: str) -> None:
    found = dangerous.search(value) if isinstance(value, str) else None
    if found is not None:
        # A password does not belong into a log.
        said = "" if "password" in what else f" is {value!r}, which"
        raise ValueError(
            f"The {what} of device {device.name!r}{said} holds {found[0]!r}: {why}. Give it another in the topology."
        )


def _without_templates(value: Any) -> Any:
    """Return the value without whatever holds a template of Ansible, in keys or texts, however deep."""
    if isinstance(value, Mapping):
        return {
            key: _without_templates(item)
            for key, item in value.items()
            if not _is_template(str(key)) and not _is_template(item)
        }
    if isinstance(value, list):
        return [_without_templates(item) for item in value if not _is_template(item)]
    return value


def _is_template(value: object) -> bool:
    return isinstance(value, str) and _ANSIBLE_TEMPLATE.search(value) is not None


def _json(value: object) -> str:
    """Return JSON that YAML reads as the same value: with characters instead of surrogate pairs, and no odd ones."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


_WRITERS: dict[str, Callable[[list[DeviceInfoDto]], str]] = {
    "ansible": _ansible,
    "nornir": _nornir,
    "ssh_config": _ssh_config,
    "pyats": _pyats,
}
_FILE_NAMES = {
    "ansible": "ansible.json",
    "nornir": "nornir-hosts.yaml",
    "ssh_config": "ssh_config",
    "pyats": "testbed.yaml",
}
KINDS = tuple(_WRITERS)
