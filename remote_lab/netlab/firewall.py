"""What labs may send to the host: answers, and nothing else. Rules of nftables in a table that all servers share.

From a management link only packets pass that belong to a connection which was opened towards the lab, by the host or by
whoever the host routes; so neither the host's services nor other labs nor the world can be reached from a lab. A packet
whose source address is not routed back to its link is dropped first. Whoever flushes the rules (a firewall that is
loaded anew) takes them away until the next lab starts or the reaper looks.
"""

from __future__ import annotations

import hashlib
import json
import subprocess

TABLE = "remote_lab"
_NFT_SECONDS = 30
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# IPv6 has no way into a lab from here. Redirects would be answers, but the host's routes are not theirs to change.
_RULES = (
    'iifname "rlab*" meta nfproto ipv6 drop',
    'iifname "rlab*" fib saddr . iif oif missing drop',
    'iifname "rlab*" icmp type redirect drop',
    'iifname "rlab*" ct direction reply ct state established,related accept',
    'iifname "rlab*" drop',
)
# After connection tracking (-200), before addresses are translated (-100).
_HOOK = "type filter hook prerouting priority -150; policy accept;"
_CHAIN = f"from_labs_{hashlib.sha256(repr((_HOOK, _RULES)).encode()).hexdigest()[:8]}"
"""Servers of another version have a chain of their own: a packet has to pass both."""


class FirewallFailed(Exception):
    """`nft` refused something; the message is its own."""


def ensure() -> bool:
    """Put the rules in force, unless they are; return whether that was needed.

    Raises:
        FirewallFailed: they cannot be.
    """
    if _is_complete():
        return False
    lines = [
        f"add table inet {TABLE}",
        f"add chain inet {TABLE} {_CHAIN} {{ {_HOOK} }}",
        f"flush chain inet {TABLE} {_CHAIN}",
        *(f"add rule inet {TABLE} {_CHAIN} {rule}" for rule in _RULES),
    ]
    # One transaction: never are there only some of them.
    result = _nft("-f", "-", stdin="\n".join(lines) + "\n")
    if result.returncode:
        raise FirewallFailed(
            f"nft cannot set up the rules that keep labs away from this host: {result.stderr.strip()[-500:]}"
        )
    return True


def remove() -> None:
    """Take the rules of all servers away; the caller knows that no lab is left on this host."""
    if _nft("list", "table", "inet", TABLE).returncode == 0:
        _nft("delete", "table", "inet", TABLE)


def _is_complete() -> bool:
    result = _nft("-j", "list", "chain", "inet", TABLE, _CHAIN)
    if result.returncode:
        return False
    entries = json.loads(result.stdout)["nftables"]
    return sum("rule" in entry for entry in entries) == len(_RULES)


def _nft(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["nft", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_NFT_SECONDS,
            env={"PATH": _PATH, "LANG": "C.UTF-8"},
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise FirewallFailed(f"nft cannot be run: {error}; apt-get install nftables") from error
