"""An uploaded topology is a program; what it does, it does to its own pod."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from lab_host import POOL, Host

from remote_lab.netlab import management

pytestmark = pytest.mark.lab

SINGLE = "defaults.device: linux\nnodes: [ h1 ]\n"
PLUGIN = """
import os, pathlib
pathlib.Path("/var/tmp/{mark}").write_text("here")
print("the plugin wrote", os.listdir("/var/tmp"), "as uid", os.getuid(), flush=True)
"""


@pytest.mark.parametrize(
    ("plugin", "file"), [("beside", "beside__py"), ("folder", "folder/plugin__py")], ids=["beside", "in-folder"]
)
def test_plugin_cannot_write_to_the_host(host: Host, plugin: str, file: str) -> None:
    """A plugin of the upload runs, and what it writes to /var/tmp is not on the host."""
    place = host.place(f"plugin: [ {plugin} ]\n{SINGLE}")
    mark = f"remote-lab-{place.lab_id}"
    path = place.directory / file.replace("__", ".")
    path.parent.mkdir(exist_ok=True)
    path.write_text(PLUGIN.format(mark=mark))
    host.boot(place)
    assert f"the plugin wrote ['{mark}'] as uid 0" in place.log.read_text()
    assert not Path("/var/tmp", mark).exists()
    host.runner.stop(place)


def test_topology_cannot_choose_the_management_network(host: Host) -> None:
    """Whatever a topology says of the management network and the provider, its devices get the pod's."""
    settings = "provider: clab\naddressing.mgmt: { ipv4: 192.0.2.0/24, start: 250 }\n"
    place = host.place(settings + SINGLE)
    (device,) = host.boot(place)
    subnet = management.subnet_of(POOL, host.pod(place).number)
    assert device.raw["mgmt"]["ipv4"] == str(subnet[1])
    host.runner.stop(place)


def test_dead_lab_does_not_leak_to_the_default_route(host: Host) -> None:
    """While a server runs, the address of a lab that is gone is unreachable instead of somebody else's."""
    place = host.place(SINGLE)
    (device,) = host.boot(place)
    host.runner.stop(place)
    found = subprocess.run(
        ["ip", "route", "get", device.raw["mgmt"]["ipv4"]], capture_output=True, text=True, check=False
    )
    assert "via" not in found.stdout


def test_missing_kernel_feature_is_netlabs_own_error(host: Host) -> None:
    """A topology that needs what this kernel lacks fails by name."""
    from remote_lab.errors import LabBootFailed
    from remote_lab.netlab.features import missing_kernel_features

    place = host.place("defaults.device: frr\nmodule: [ vrf ]\nvrfs: { red: }\nnodes: [ r1 ]\n")
    if "vrf" not in missing_kernel_features():
        host.boot(place)
    else:
        with pytest.raises(LabBootFailed) as failure:
            host.boot(place)
        assert "does not support module vrf" in failure.value.log_tail
    host.runner.stop(place)
