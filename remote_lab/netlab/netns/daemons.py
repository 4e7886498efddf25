"""Control-plane daemons that are not FRR: which files they read, which processes they are.

netlab says what a daemon's files are (`daemon_config` of its device); containers get them before they start, nodes in
namespaces when their interfaces are configured, so that a daemon never waits for its data plane.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Process:
    """A process of a node that must live once the node is configured."""

    name: str
    """As the kernel calls it."""
    start: tuple[str, ...]
    """It goes into the background by itself."""
    reload: tuple[str, ...]
    """Makes it read its files again."""


_BIRD = Process(
    "bird",
    ("sh", "-c", "mkdir -p /run/bird && exec /usr/sbin/bird -c /etc/bird/bird.conf"),
    ("/usr/sbin/birdc", "configure"),
)
# -R: no upstream servers from /etc/resolv.conf. It reads its configuration at its start only.
_DNSMASQ = Process("dnsmasq", ("/usr/sbin/dnsmasq", "-R", "-C", "/etc/dnsmasq.conf"), ())
_RSYSLOGD = Process("rsyslogd", ("/usr/sbin/rsyslogd",), ())


def config_files(node: Any) -> dict[str, str]:
    """Return the files of a node besides its scripts: netlab's name of the template -> path in the node.

    Args:
        node: netlab's data of a node (a Box) after its transformation.
    """
    files = {name.replace("@", "."): target for name, target in node.get("_daemon_config", {}).items()}
    if node.device == "dnsmasq" and node.get("services.server.syslog", False):
        files["rsyslogd"] = "/etc/rsyslog.conf"
    if "services.dns._server_list" in node:
        files["resolv"] = "/etc/resolv.conf"
    return files


def processes(node: Any) -> list[Process]:
    """Return what has to run in a node besides FRR and the ssh server."""
    if node.device == "bird":
        return [_BIRD]
    if node.device != "dnsmasq":
        return []
    found = []
    if node.get("dhcp.server", False) or node.get("services.server.dns", None) is not None:
        found.append(_DNSMASQ)
    if node.get("services.server.syslog", False):
        found.append(_RSYSLOGD)
    return found
