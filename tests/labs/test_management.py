"""Numbers and management networks are shared by all servers of a host; the kernel decides."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network

import pytest

from remote_lab.netlab import management

pytestmark = pytest.mark.lab

POOL = IPv4Network("198.19.0.0/16")
"""Not that of the labs."""
OWNER = "test-management"


@pytest.fixture
def claim() -> Iterator[Callable[[str], management.ManagementNetwork]]:
    def make(lab_id: str) -> management.ManagementNetwork:
        return management.claim(POOL, OWNER, lab_id)

    yield make
    for claimed in management.claims():
        if claimed.owner == OWNER:
            management.release(claimed)


def test_servers_that_claim_at_once_get_different_numbers(
    claim: Callable[[str], management.ManagementNetwork],
) -> None:
    """However many servers want a number at the same moment, each gets its own, marked as its own."""
    with ThreadPoolExecutor(8) as threads:
        networks = list(threads.map(claim, map(str, range(8))))
    assert len({network.number for network in networks}) == 8
    marked = {found.lab_id: found.number for found in management.claims() if found.owner == OWNER}
    assert marked == {str(lab): network.number for lab, network in enumerate(networks)}


def test_network_that_the_host_uses_is_left_alone(claim: Callable[[str], management.ManagementNetwork]) -> None:
    """A network that overlaps with an address of the host is never given to a lab."""
    first = claim("first")
    (claimed,) = [found for found in management.claims() if found.lab_id == "first" and found.owner == OWNER]
    management.release(claimed)
    occupied = f"{first.subnet[77]}/28"
    subprocess.run(["ip", "link", "add", "rltest0", "type", "veth", "peer", "name", "rltest1"], check=True)
    try:
        subprocess.run(["ip", "address", "add", occupied, "dev", "rltest0"], check=True)
        subprocess.run(["ip", "link", "set", "rltest0", "up"], check=True)
        assert claim("second").number != first.number
    finally:
        subprocess.run(["ip", "link", "delete", "rltest0"], check=True)


def test_full_pool_is_an_error_that_names_it() -> None:
    """A pool without a free network says so."""
    with pytest.raises(management.NoFreeNetwork, match=r"198\.19\.0\.0/24"):
        management.claim(IPv4Network("198.19.0.0/24"), OWNER, "lab")
