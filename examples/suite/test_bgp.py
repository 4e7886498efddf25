"""Two autonomous systems."""

from routers import vtysh, wait_for


def test_the_session_is_established(bgp_pair):
    r1, _ = bgp_pair

    def peers():
        summary = vtysh(r1, "show bgp ipv4 unicast summary")
        return [peer for peer in summary.get("peers", {}).values() if peer["state"] == "Established"]

    (peer,) = wait_for(peers)
    assert peer["remoteAs"] == 65001


def test_r1_learns_the_network_behind_r2(bgp_pair):
    r1, _ = bgp_pair
    (path, *_) = wait_for(lambda: vtysh(r1, "show ip route bgp").get("172.16.2.0/24"))
    assert path["protocol"] == "bgp"
