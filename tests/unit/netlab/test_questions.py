"""What devices are asked, and what is kept of their answers."""

from __future__ import annotations

from pathlib import Path

import netsim
import pytest

from remote_lab.netlab.device_state import (
    COMMANDS,
    CUT,
    MAX_OUTPUT_BYTES,
    Said,
    commands_of,
    device_type,
    shown,
    within_limits,
)

NETLAB = Path(netsim.__path__[0])


def test_the_table_knows_netlab_s_devices() -> None:
    """Each of its types is one of netlab's, and few of netlab's are missing: those without a command line."""
    known = {path.stem for folder in ("devices", "daemons") for path in (NETLAB / folder).glob("*.yml")}
    families = {"ios", "junos", "xr", "kind"}
    assert set(COMMANDS) - known == set()
    assert known - families - set(COMMANDS) == {"csrx", "netscaler", "none", "unknown", "vpp"}
    assert [name for name, shows in COMMANDS.items() if not shows] == []


def test_a_device_is_asked_about_the_modules_it_has() -> None:
    """A question about another protocol would be an error on every healthy router."""
    asked = [shown(command) for command in commands_of({"ansible_network_os": "frr", "module": ["ospf"]})]
    assert asked[0] == "vtysh -c 'show running-config'"
    assert "vtysh -c 'show ip ospf neighbor'" in asked
    assert [line for line in asked if "bgp" in line or "isis" in line] == []


def test_the_type_of_a_device_is_found_as_netlab_does() -> None:
    """Some devices share a network operating system; then netlab says the type beside it."""
    assert device_type({"ansible_network_os": "ios", "netlab_device_type": "iosvl2"}) == "iosvl2"
    assert device_type({"ansible_network_os": "eos"}) == "eos"


@pytest.mark.parametrize(
    "raw", [{}, {"ansible_network_os": 1}, {"ansible_network_os": ["frr"]}, {"ansible_network_os": "no such"}]
)
def test_what_is_no_device_of_ours_is_asked_nothing(raw: dict[str, object]) -> None:
    """The data is the lab's own word."""
    assert commands_of({**raw, "module": {"bgp": True}}) == []


def test_answers_are_cut_and_cleaned() -> None:
    """Each to its own limit, all to what is left; nothing of them can command a terminal."""
    long = Said("x" * (MAX_OUTPUT_BYTES + 1), ok=True)
    kept, left = within_limits(
        [long, Said("\x1b[31mred\x1b[0m\r\n\tand\x07 bare\n", ok=False), long], MAX_OUTPUT_BYTES + 20
    )
    assert kept[0] == Said("x" * MAX_OUTPUT_BYTES + CUT, ok=True)
    assert kept[1] == Said("red\n\tand bare\n", ok=False)
    assert (len(kept[2].output), left) == (20 - len(kept[1].output) + len(CUT), 0)
