"""Two routers that speak OSPF."""

from routers import vtysh, wait_for


def test_the_routers_are_neighbors(ospf_pair):
    r1, _ = ospf_pair

    def full_neighbors():
        neighbors = vtysh(r1, "show ip ospf neighbor")["neighbors"]
        return [entry for entries in neighbors.values() for entry in entries if "Full" in entry["nbrState"]]

    assert len(wait_for(full_neighbors)) == 1


def test_r1_learns_the_loopback_of_r2(ospf_pair):
    r1, r2 = ospf_pair
    loopback = r2.raw["loopback"]["ipv4"]
    routes = wait_for(lambda: vtysh(r1, "show ip route ospf").get(loopback))
    assert routes[0]["nexthops"][0]["active"]
