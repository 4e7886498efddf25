"""What a topology may say where no sandbox holds it: attributes of netlab 26.10 that are plain data. Tables only.

What netlab evaluates, executes, includes or gives to the host is left out, and so is everything whose effect is not
known. Values keep to characters that mean nothing to a shell, to Jinja and to Python's f-strings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_][A-Za-z0-9_-]*)*", re.ASCII)
"""Of keys, dots included: Box gives meanings to brackets and to empty parts."""

_MODULE_NAMES = (
    "bfd", "bgp", "dhcp", "eigrp", "evpn", "gateway", "isis", "lag", "mpls", "ospf", "ripv2", "routing", "services",
    "sr", "srv6", "stp", "vlan", "vrf", "vxlan",
)  # fmt: skip

# Those of netlab's own that evaluate nothing and start nothing. No file of an upload can take their place: only Python
# files and folders are looked for.
_PLUGIN_NAMES = (
    "bgp.domain", "bgp.originate", "bgp.policy", "bgp.session", "check.config", "ebgp.multihop", "ebgp.utils",
    "evpn.multihoming", "mlag.vtep", "ospf.areas", "vrrp.version",
)  # fmt: skip

REASONS: Mapping[str, str] = {
    "_include": "it reads other files",
    "binds": "it mounts files of the host",
    "bridge": "it is a bridge of the host",
    "clab": "it gives containers access to the host",
    "config": "custom configurations are programs",
    "defaults": "netlab evaluates defaults, only `defaults.device` is allowed",
    "image": "containers are privileged, only the device's default image is allowed",
    "libvirt": "it gives virtual machines access to the host",
    "mgmt": "the management network is the server's",
    "outputs": "netlab evaluates it",
    "plugin": "plugins are programs",
    "provider": "the server has chosen one",
    "providers": "it names commands of the host",
    "tools": "tools are commands of the host",
    "show": "netlab evaluates it, only `plugin: test(argument, ...)` is allowed",
    "valid": "netlab evaluates it, only `plugin: test(argument, ...)` is allowed",
    "vars": "Ansible evaluates variables",
}
"""What is refused wherever a name may stand, and why: netlab copies attributes of modules to links and nodes."""


@dataclass(frozen=True)
class Rule:
    """What may stand in one place of a topology."""

    scalar: re.Pattern[str] | None = None
    """Of the whole text of a scalar; None: there can be none but null."""
    expected: str = "which is not allowed there"
    """Of a scalar, as the end of a sentence."""
    items: Rule | None = None
    """Of a list; None: there can be none."""
    keys: Mapping[str, Rule] = field(default_factory=dict)
    others: Rule | None = None
    """Of keys that are names; those in `REASONS` and those that begin with an underscore never are."""
    node_names: bool = False
    """Keys may also be names of nodes, with the same exceptions."""


def _word(pattern: str, expected: str) -> Rule:
    return Rule(re.compile(pattern, re.ASCII), expected)


def _listed(rule: Rule) -> Rule:
    return Rule(rule.scalar, rule.expected, items=rule)


def _named(rule: Rule) -> Rule:
    return Rule(others=rule)


_VALUE = r"[A-Za-z0-9_^*.:][A-Za-z0-9_^*.:/@,+-]*|-[0-9][0-9.]*|"
_PLAIN = _word(_VALUE, "only letters, digits and _ . : / @ , + - ^ * are")
_TEXT = _word(r"[A-Za-z0-9_.:/@,+ -]*", "only letters, digits, spaces and _ . : / @ , + - are")
_MESSAGE = _word(r"[^{}\\\x00-\x08\x0b-\x1f\x7f-\x9f]*", "braces, backslashes and control characters are not")
_IDENTIFIER = _word(r"[A-Za-z_][A-Za-z0-9_]*", "only names of letters, digits and _ are")
_DEVICE = _word(r"[a-z][a-z0-9_-]*", "only names of devices are")
_MODULE = _word(f"({'|'.join(_MODULE_NAMES)})(,({'|'.join(_MODULE_NAMES)}))*", f"only {', '.join(_MODULE_NAMES)} are")
_PLUGIN = _word("|".join(map(re.escape, _PLUGIN_NAMES)), f"only {', '.join(_PLUGIN_NAMES)} are")
_MEMBER = _word(r"~?[A-Za-z0-9_^*?.\[\]+-]+", "only names and patterns of names are")
_VERSION = _word(r"[<>=!~ ]*[0-9][0-9a-z.,<>=!~ ]*", "only versions are")
_PROVIDER = _word(r"clab|libvirt|netns|virtualbox", "the server has chosen one")
_BETWEEN = _word(r"[A-Za-z0-9_]+( ?- ?[A-Za-z0-9_]+)*", "only names of nodes with - between them are")
_ARGUMENT = r"([a-z]\w*=)?([A-Za-z]\w*(\[[0-9]+\])*(\.[a-z]\w*(\[[0-9]+\])*)*|'[A-Za-z0-9_.:/-]*'|-?[0-9.]+)"
_TEST = _word(rf"[a-z]\w*\(\s*({_ARGUMENT}(,\s*{_ARGUMENT})*)?\s*\)\s*", "only calls with names and short texts are")


def _data(levels: int) -> Rule:
    """Plain data of a module: it must not be nested deeper than anything that netlab knows."""
    inner = None if levels == 0 else _data(levels - 1)
    sequence = Rule(_PLAIN.scalar, _PLAIN.expected, items=inner, others=inner)
    return Rule(_PLAIN.scalar, _PLAIN.expected, items=sequence, others=inner)


_DATA = _data(8)
_ADDRESSES = {"ipv4": _DATA, "ipv6": _DATA}
_MODULES = dict.fromkeys(_MODULE_NAMES, _DATA)

NODE_INTERFACE = Rule(
    _PLAIN.scalar,
    _PLAIN.expected,
    keys={
        **_MODULES,
        **_ADDRESSES,
        **dict.fromkeys(
            ("bandwidth", "disable", "ifindex", "ifname", "linkid", "mtu", "ra", "role", "shutdown"), _DATA
        ),
        **dict.fromkeys(("node", "tc", "unnumbered"), _DATA),
        "name": _TEXT,
    },
)
"""A node's end of a link: an address, or attributes."""

_LINK_ATTRIBUTES = {
    **_MODULES,
    **dict.fromkeys(("bandwidth", "disable", "linkid", "mtu", "pool", "prefix", "ra", "role", "shutdown"), _DATA),
    **dict.fromkeys(("tc", "type", "unnumbered", "vlan_name"), _DATA),
    "name": _TEXT,
}
_link_keys: dict[str, Rule] = {
    **_LINK_ATTRIBUTES,
    "group": _IDENTIFIER,
    "interfaces": Rule(items=NODE_INTERFACE, node_names=True),
}
_LINK = Rule(_BETWEEN.scalar, _BETWEEN.expected, items=_BETWEEN, keys=_link_keys, node_names=True)
_link_keys["members"] = Rule(items=_LINK)
_LINKS = Rule(items=_LINK, others=Rule(items=_LINK))
_VLAN_OR_VRF = Rule(
    keys={
        **_LINK_ATTRIBUTES,
        **_ADDRESSES,
        **dict.fromkeys(("export", "id", "import", "loopback", "mode", "rd", "vni"), _DATA),
        "links": _LINKS,
    }
)
_VLANS_OR_VRFS = _named(_VLAN_OR_VRF)

_NODE = Rule(
    keys={
        **_MODULES,
        **dict.fromkeys(("cpu", "id", "loopback", "memory", "mtu", "role", "router_id"), _DATA),
        "device": _DEVICE,
        "group": _listed(_IDENTIFIER),
        "module": _listed(_MODULE),
        "name": _IDENTIFIER,
        "provider": _PROVIDER,
        "vlans": _VLANS_OR_VRFS,
        "vrfs": _VLANS_OR_VRFS,
    }
)
_GROUP = Rule(
    items=_MEMBER,
    keys={
        **_NODE.keys,
        **_LINK_ATTRIBUTES,
        **_ADDRESSES,
        **dict.fromkeys(("export", "import", "mode", "rd", "vni"), _DATA),
        "_auto_create": _PLAIN,
        "members": _listed(_MEMBER),
        "node_data": _NODE,
        "type": _PLAIN,
    },
)
_POOL = Rule(
    keys={**_ADDRESSES, **dict.fromkeys(("allocation", "mac", "prefix", "prefix6", "start", "unnumbered"), _PLAIN)}
)
_VALIDATION = Rule(
    keys={
        **dict.fromkeys(("devices", "level", "nodes", "stop_on_error", "wait"), _listed(_PLAIN)),
        **dict.fromkeys(("description", "fail", "pass", "wait_msg"), _MESSAGE),
        "plugin": _TEST,
    }
)
"""A test whose name netlab looks up among its own; see netsim/cli/validate/plugin.py."""

TOPOLOGY = Rule(
    keys={
        **_MODULES,
        # The management network has a rule without keys.
        "addressing": Rule(keys={"mgmt": Rule()}, others=_POOL),
        "defaults": Rule(keys={"device": _DEVICE}),
        "groups": Rule(keys={"_auto_create": _PLAIN}, others=_GROUP),
        "links": _LINKS,
        "message": Rule(_MESSAGE.scalar, _MESSAGE.expected, others=_MESSAGE),
        "module": _listed(_MODULE),
        "name": _IDENTIFIER,
        "nodes": Rule(_IDENTIFIER.scalar, _IDENTIFIER.expected, items=Rule(_IDENTIFIER.scalar, "", keys=_NODE.keys),
                      others=_NODE),
        "plugin": _listed(_PLUGIN),
        "prefix": _named(_DATA),
        "validate": _named(_VALIDATION),
        "provider": _PROVIDER,
        "version": _VERSION,
        "vlans": _VLANS_OR_VRFS,
        "vrfs": _VLANS_OR_VRFS,
    }
)  # fmt: skip
