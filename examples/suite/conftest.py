from remote_lab.testing.fixture import remote_lab_fixture

ospf_pair = remote_lab_fixture("topologies/ospf-pair.yml", reuse_lab=True)
bgp_pair = remote_lab_fixture("topologies/bgp-pair.yml", reuse_lab=True)
