"""What is asked of the devices of a running lab when somebody wants to see their state: one table, and its answers.

The configuration comes first, then what people look at when a test has failed. Commands that are for a module are asked
only where the node has it. How they get to a device is known by the sites.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

Command = tuple[str, ...]
"""An argument list; on devices without a shell, the words of one command."""

COLLECT_SECONDS = 20.0
MAX_OUTPUT_BYTES = 256 * 1024
MAX_TOTAL_BYTES = 8 * 2**20
CUT = "\n... cut here: it is too long\n"
# Escape sequences of terminals and control characters: whoever looks at it does so in a terminal.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Show:
    """A command, and the netlab module without which it says nothing; "" when it is for all."""

    command: Command
    module: str = ""


def _shows(*lines: str, **by_module: str) -> tuple[Show, ...]:
    always = [Show(tuple(shlex.split(line))) for line in lines]
    return (*always, *(Show(tuple(shlex.split(line)), module) for module, line in by_module.items()))


def _vtysh(prefix: str = "") -> tuple[Show, ...]:
    def ask(line: str) -> str:
        return f"{prefix}vtysh -c '{line}'"

    return _shows(
        ask("show running-config"),
        ask("show interface brief"),
        ask("show ip route"),
        ask("show ipv6 route"),
        bgp=ask("show bgp summary"),
        ospf=ask("show ip ospf neighbor"),
        isis=ask("show isis neighbor"),
        bfd=ask("show bfd peers brief"),
        evpn=ask("show bgp l2vpn evpn summary"),
        mpls=ask("show mpls table"),
        vrf=ask("show ip route vrf all"),
        vlan="bridge vlan show",
    )


def _vbash(line: str) -> str:
    # VyOS knows its commands in an interactive login shell only (netlab 26.10, ansible/tasks/fetch-config/vyos.yml).
    return f"/bin/vbash -cil '{line}'"


_LINUX = _shows("ip address show", "ip route show", "ip -6 route show", "ip neighbor show", vlan="bridge vlan show")
_IOS = _shows(
    "show running-config",
    "show ip interface brief",
    "show ip route",
    bgp="show ip bgp summary",
    ospf="show ip ospf neighbor",
    isis="show isis neighbors",
    vlan="show vlan brief",
)
_JUNOS = _shows(
    "show configuration",
    "show interfaces terse",
    "show route",
    bgp="show bgp summary",
    ospf="show ospf neighbor",
    isis="show isis adjacency",
)
_SROS = _shows("admin show configuration", "show router interface", "show router route-table")

COMMANDS: Mapping[str, tuple[Show, ...]] = {
    "arcos": _shows("show running-config"),
    "arubacx": _shows("show running-config", "show interface brief", "show ip route", bgp="show bgp all summary"),
    "asav": _shows("show running-config", "show interface ip brief", "show route"),
    "bird": (
        *_shows("sh -c 'cat /etc/bird/*.conf'", "birdc show protocols all", "birdc show route"),
        *_shows("ip address show", "ip route show", ospf="birdc show ospf neighbors"),
    ),
    "cat8000v": _IOS,
    "cisco8000v": _shows("show running-config", "show ip interface brief", "show route", bgp="show bgp summary"),
    "crpd": _shows(
        *("cli -c 'show configuration'", "cli -c 'show interfaces routing'", "cli -c 'show route'"),
        bgp="cli -c 'show bgp summary'",
        ospf="cli -c 'show ospf neighbor'",
        isis="cli -c 'show isis adjacency'",
    ),
    "csr": _IOS,
    "cumulus": _vtysh("sudo "),
    "cumulus_nvue": (*_shows("nv config show"), *_vtysh("sudo ")),
    "dellos10": _shows(
        *("show running-configuration", "show ip interface brief", "show ip route"), bgp="show ip bgp summary"
    ),
    "dnsmasq": _shows("cat /etc/dnsmasq.conf", "tail -n 200 /var/log/dnsmasq", "ip address show", "ip route show"),
    "eos": _shows(
        *("show running-config", "show ip interface brief", "show ip route", "show ipv6 route"),
        bgp="show ip bgp summary",
        ospf="show ip ospf neighbor",
        isis="show isis neighbors",
        bfd="show bfd peers",
        evpn="show bgp evpn summary",
        vlan="show vlan",
        vxlan="show vxlan vtep",
    ),
    "exos": _shows("show configuration", "show vlan", "show iproute"),
    "fortios": _shows("show", "get system interface physical", "get router info routing-table all"),
    "frr": _vtysh(),
    "iol": _IOS,
    "ioll2": _IOS,
    "iosv": _IOS,
    "iosvl2": _IOS,
    "iosxr": _shows(
        *("show running-config", "show ip interface brief", "show route"),
        bgp="show bgp summary",
        ospf="show ospf neighbor",
        isis="show isis neighbors",
    ),
    "linux": _LINUX,
    "nxos": _IOS,
    "openbsd": _shows("ifconfig", "netstat -rn"),
    "routeros": _shows("/export", "/ip address print", "/ip route print"),
    "routeros7": _shows("/export", "/ip address print", "/ip route print"),
    "sonic": _vtysh("sudo "),
    "srlinux": _shows(
        *("info", "show interface brief", "show network-instance summary"),
        bgp="show network-instance default protocols bgp neighbor",
        ospf="show network-instance default protocols ospf neighbor",
        isis="show network-instance default protocols isis adjacency",
    ),
    "sros": _SROS,
    "srsim": _SROS,
    "vjunos-router": _JUNOS,
    "vjunos-switch": _JUNOS,
    "vmx": _JUNOS,
    "vptx": _JUNOS,
    "vsrx": _JUNOS,
    "vyos": _shows(
        *(_vbash("show configuration commands"), _vbash("show interfaces"), _vbash("show ip route")),
        bgp=_vbash("show ip bgp summary"),
        ospf=_vbash("show ip ospf neighbor"),
        isis=_vbash("show isis neighbor"),
    ),
}
"""netlab's device type (26.10) -> what is asked of it, the configuration first. Other types are asked nothing."""


@dataclass(frozen=True)
class Said:
    """What came of a command on a device."""

    output: str
    ok: bool


Wanted = Mapping[str, Sequence[Command]]
"""Names of devices -> their commands."""
Collected = Mapping[str, Sequence[Said]]
"""Names of devices -> what they said, in the order of their commands."""


@dataclass(frozen=True)
class CommandOutput:
    """A command and what the device said; `ok` when it did not fail there."""

    command: str
    output: str
    ok: bool


@dataclass(frozen=True)
class DeviceState:
    """What a device says of itself."""

    name: str
    device: str | None
    """Its netlab device type, None when netlab did not say."""
    outputs: list[CommandOutput]


def device_type(raw: Mapping[str, object]) -> str | None:
    """Return the netlab device type of a device by what `netlab inspect` prints of it, by netlab's own rule.

    netsim/outputs/common.py of 26.10; the data comes from a lab, so it may be anything.
    """
    found = raw.get("netlab_device_type") or raw.get("ansible_network_os")
    return found if isinstance(found, str) else None


def commands_of(raw: Mapping[str, object]) -> list[Command]:
    """Return what a device is asked; empty for a type that is not in the table."""
    modules = raw.get("module")
    has: Collection[object] = modules if isinstance(modules, list) else ()
    shows = COMMANDS.get(device_type(raw) or "", ())
    return [show.command for show in shows if not show.module or show.module in has]


def shown(command: Command) -> str:
    """Return a command as people type it."""
    return shlex.join(command)


def within_limits(said: Sequence[Said], budget: int) -> tuple[list[Said], int]:
    """Return outputs without control characters, cut to what one may be and all may still be, and what is left of that.

    Args:
        said: by a device, or by code of a lab that pretends to be one.
        budget: characters.
    """
    kept = []
    for one in said:
        text = _CONTROL.sub("", one.output)
        room = min(MAX_OUTPUT_BYTES, budget)
        kept.append(Said(text if len(text) <= room else text[:room] + CUT, one.ok))
        budget -= min(len(text), room)
    return kept, budget


def assemble(
    devices: Iterable[tuple[str, Mapping[str, object]]], wanted: Wanted, collected: Collected, why_not: str
) -> list[DeviceState]:
    """Return the state of each device, within the limits of size.

    Args:
        devices: names, and what `netlab inspect` prints of them.
        wanted: what each of them was to be asked.
        collected: what they said; less of it than was asked, or more, is no error.
        why_not: a clause for commands without an answer.
    """
    budget = MAX_TOTAL_BYTES
    states = []
    for name, raw in devices:
        commands = wanted[name]
        unasked = [Said(f"not asked: {why_not}\n", ok=False)] * len(commands)
        said, budget = within_limits([*collected.get(name, ()), *unasked][: len(commands)], budget)
        outputs = [CommandOutput(shown(asked), one.output, one.ok) for asked, one in zip(commands, said, strict=True)]
        states.append(DeviceState(name, device_type(raw), outputs))
    return states
