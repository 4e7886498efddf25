"""What network tools call the device types of netlab: one table. How to reach a device is not said here.

Sources: netlab 26.10 (`netsim/devices/*.yml`: `ansible_network_os`), netmiko 4.8 (`CLASS_MAPPER`), scrapli 2.0 (its
definitions; the names are those of scrapli 1 with scrapli_community, but for `default`), NAPALM 5.2 (its own drivers,
none of the community's) and unicon.plugins 26.9, which pyATS logs in with.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Platform:
    """The names of one device type; None where a tool has none."""

    netlab: str
    """netlab's device type; `unknown` where nothing says it."""
    ansible_network_os: str | None = None
    """As netlab sets it; newer Ansible collections want a prefix, for example `arista.eos.eos`."""
    netmiko: str | None = None
    """`device_type` of netmiko's ConnectHandler."""
    scrapli: str | None = None
    """The definition of scrapli 2, the platform of scrapli 1; `default` (scrapli 2 alone) is any prompt of a shell."""
    napalm: str | None = None
    """The driver of NAPALM, for its get_network_driver."""
    pyats: str | None = None
    """`os` in a testbed of pyATS."""


def platform_of(netlab_device: str) -> Platform:
    """Return the names of a netlab device type or ansible_network_os; nothing but its own name when it is not known."""
    device = _BY_NETWORK_OS.get(netlab_device, netlab_device)
    return _TABLE.get(device) or Platform(netlab_device)


def _row(
    netlab: str,
    network_os: str,
    netmiko: str | None,
    scrapli: str | None = None,
    napalm: str | None = None,
    pyats: str | None = None,
) -> Platform:
    return Platform(netlab, network_os, netmiko, scrapli, napalm, pyats)


def _junos(netlab: str) -> Platform:
    return _row(netlab, "junos", "juniper_junos", "juniper_junos", "junos", "junos")


def _shell(netlab: str, network_os: str, pyats: str | None = "linux") -> Platform:
    """Logging in gives a shell: FRR's own prompt is one `vtysh` away, and no tool knows it."""
    return _row(netlab, network_os, "linux", "default", None, pyats)


# Meta types (ios, junos, xr) are here as well: netlab calls an iosv `ios`. So are daemons, which run on a Linux.
_ROWS = (
    _row("arcos", "arrcus.arcos.arcos", None),
    _row("arubacx", "arubanetworks.aoscx.aoscx", "aruba_aoscx", "aruba_aoscx"),
    _row("asav", "asa", "cisco_asa", "cisco_asa", None, "asa"),
    _shell("bird", "linux"),
    _row("cat8000v", "ios", "cisco_xe", "cisco_iosxe", "ios", "iosxe"),
    _row("cisco8000v", "iosxr", "cisco_xr", "cisco_iosxr", "iosxr_netconf", "iosxr"),
    _junos("crpd"),
    _row("csr", "ios", "cisco_xe", "cisco_iosxe", "ios", "iosxe"),
    _junos("csrx"),
    _row("cumulus", "cumulus", "cumulus_linux", "cumulus_linux", None, "linux"),
    _row("cumulus_nvue", "cumulus_nvue", "cumulus_linux", "cumulus_linux", None, "linux"),
    _row("dellos10", "dellos10", "dell_os10", None, None, "dnos10"),
    _shell("dnsmasq", "linux"),
    _row("eos", "eos", "arista_eos", "arista_eos", "eos", "eos"),
    _row("exos", "exos", "extreme_exos"),
    _row("fortios", "fortinet.fortios.fortios", "fortinet", "fortinet_fortios"),
    _shell("frr", "frr"),
    _row("iol", "ios", "cisco_xe", "cisco_iosxe", "ios", "iosxe"),
    _row("ioll2", "ios", "cisco_xe", "cisco_iosxe", "ios", "iosxe"),
    _row("ios", "ios", "cisco_ios", "cisco_iosxe", "ios", "ios"),
    _row("iosv", "ios", "cisco_ios", "cisco_iosxe", "ios", "ios"),
    _row("iosvl2", "ios", "cisco_ios", "cisco_iosxe", "ios", "ios"),
    _row("iosxr", "iosxr", "cisco_xr", "cisco_iosxr", "iosxr_netconf", "iosxr"),
    _junos("junos"),
    _shell("kind", "linux"),
    _shell("linux", "linux"),
    _row("netscaler", "netscaler", "netscaler"),
    _row("nxos", "nxos", "cisco_nxos", "cisco_nxos", "nxos", "nxos"),
    _row("openbsd", "openbsd", None),
    _row("routeros", "routeros", "mikrotik_routeros", "mikrotik_routeros"),
    _row("routeros7", "routeros", "mikrotik_routeros", "mikrotik_routeros"),
    _shell("sonic", "frr", "sonic"),
    _row("srlinux", "srlinux", "nokia_srl", "nokia_srlinux"),
    _row("sros", "sros", "nokia_sros", "nokia_sros", None, "sros"),
    _row("srsim", "sros", "nokia_sros", "nokia_sros", None, "sros"),
    _junos("vjunos-router"),
    _junos("vjunos-switch"),
    _junos("vmx"),
    _shell("vpp", "frr"),
    _junos("vptx"),
    _junos("vsrx"),
    _row("vyos", "vyos", "vyos", "vyos_vyos"),
    _row("xr", "iosxr", "cisco_xr", "cisco_iosxr", "iosxr_netconf", "iosxr"),
)
_TABLE = {row.netlab: row for row in _ROWS}

_BY_NETWORK_OS = {
    "arrcus.arcos.arcos": "arcos",
    "arubanetworks.aoscx.aoscx": "arubacx",
    "asa": "asav",
    "fortinet.fortios.fortios": "fortios",
}
"""The `ansible_network_os` of device types that netlab gives no other name in `netlab inspect`, and that differ."""
