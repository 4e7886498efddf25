"""What operators do with a running lab: netlab's own commands, in a terminal and without one."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lab_host import EXAMPLES, Host

from remote_lab.errors import LabNotRunning
from remote_lab.netlab.runner import LabPlace

pytestmark = pytest.mark.lab

COMMAND = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from lab_host import make_runner
from remote_lab.netlab.runner import LabPlace
place = LabPlace(sys.argv[3], 1, Path(sys.argv[4]), "topology.yml", Path("/dev/null"))
sys.exit(make_runner(Path(sys.argv[2])).netlab(place, sys.argv[5:]))
"""


@pytest.fixture(scope="module")
def lab(host: Host) -> LabPlace:
    place = host.place((EXAMPLES / "services.yml").read_text())
    host.boot(place)
    return place


@pytest.fixture
def netlab(host: Host, lab: LabPlace, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def run(*arguments: str) -> tuple[int, str]:
        status = host.runner.netlab(lab, arguments)
        captured = capfd.readouterr()
        return status, captured.out + captured.err

    return run


Netlab = Callable[..., tuple[int, str]]


def operator_command(host: Host, lab: LabPlace, *arguments: str) -> list[str]:
    """A process of its own, as the command line is."""
    here = str(Path(__file__).parent)
    return [sys.executable, "-c", COMMAND, here, str(host.state_dir), lab.lab_id, str(lab.directory), *arguments]


def test_bird_and_dnsmasq_serve_the_lab(netlab: Netlab) -> None:
    """A BIRD router speaks OSPF with FRR and forwards; a dnsmasq node answers names."""
    status, said = netlab("validate")
    assert (status, "Tests passed: 2" in said) == (0, True), said
    assert "h2.lab.test" in netlab("exec", "h1", "getent", "hosts", "h2.lab.test")[1]
    assert "Full" in netlab("connect", "r2", "--show", "ospf", "neighbors")[1]


def test_status_shows_every_node(netlab: Netlab) -> None:
    """The table has room for all of its columns when nobody's terminal gives its width."""
    status, said = netlab("status")
    assert (status, said.count("running")) == (0, 5)
    assert "198.18." in said


def test_config_deploys_a_template_without_ansible(netlab: Netlab, lab: LabPlace) -> None:
    """`netlab config` deploys to FRR, BIRD and Linux nodes alike, with extra variables."""
    (lab.directory / "said.j2").write_text("echo {{ word }} from {{ inventory_hostname }} > /root/said\n")
    (lab.directory / "name.j2").write_text("ip prefix-list {{ word }} seq 5 permit any\n")
    status, said = netlab("config", "said", "--limit", "h1,r2", "-e", "word=hello")
    assert status == 0, said
    for node in ("h1", "r2"):
        assert f"hello from {node}" in netlab("exec", node, "cat", "/root/said")[1]
    assert netlab("config", "name", "--limit", "r1", "-e", "word=welcome")[0] == 0
    assert "ip prefix-list welcome seq 5 permit any" in netlab("exec", "r1", "vtysh", "-c", "show running-config")[1]


def test_config_that_fails_says_why(netlab: Netlab, lab: LabPlace) -> None:
    """A template that a node refuses ends with the node's words and a status that is not 0."""
    (lab.directory / "wrong.j2").write_text("echo it goes wrong >&2; exit 3\n")
    status, said = netlab("config", "wrong", "--limit", "h1")
    assert status != 0
    assert "it goes wrong" in said


def test_commands_that_need_ansible_say_so(netlab: Netlab) -> None:
    """What netlab can do with Ansible alone is refused in a sentence."""
    status, said = netlab("collect")
    assert status != 0
    assert "needs Ansible" in said


def test_capture_ends_and_shows_packets(netlab: Netlab) -> None:
    """Packets of an interface are captured from the operator's side."""
    status, said = netlab("capture", "r1", "eth1", "-c", "1")
    assert (status, "1 packet captured" in said) == (0, True), said


def test_initial_configuration_can_be_deployed_again(host: Host, lab: LabPlace, netlab: Netlab) -> None:
    """`netlab initial` on a running lab restarts what reads its files at its start only, and nothing dies."""
    status, said = netlab("initial")
    assert status == 0, said
    assert host.runner.probe(lab) is None


def test_status_of_netlab_is_the_operators(netlab: Netlab) -> None:
    """A netlab command that fails has its own exit status."""
    assert netlab("connect", "nobody")[0] != 0
    assert netlab("no-such-command")[0] != 0


def test_terminal_stays_a_terminal(host: Host, lab: LabPlace) -> None:
    """In a terminal `netlab connect` is an interactive login of the terminal's size, in which Ctrl-C ends a command."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen(
        operator_command(host, lab, "connect", "h1"), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    said = ""

    def expect(text: str) -> None:
        nonlocal said
        deadline = time.monotonic() + 30
        while text not in said:
            assert time.monotonic() < deadline, said
            said += os.read(ours, 4096).decode(errors="replace")
        said = said.partition(text)[2]

    expect("#")
    os.write(ours, b"echo size=$(stty size)\n")
    expect("size=33 99")
    os.write(ours, b"sleep 600 || echo ended=$?\n")
    expect("sleep 600")
    os.write(ours, b"\x03")
    expect("#")
    os.write(ours, b"exit\n")
    expect("exit")
    assert process.wait(30) == 0
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


def test_dead_daemon_of_a_node_is_noticed(host: Host) -> None:
    """A BIRD that died makes its lab dead."""
    place = host.place("nodes:\n  r1: { device: bird, role: router, module: [ ospf ] }\n")
    host.boot(place)
    assert host.runner.probe(place) is None
    host.inside(place, "/opt/remote-lab/bin/netns-lab", "exec", "r1", "pkill", "-9", "bird")
    assert host.runner.probe(place) == "node r1 is not running: bird"
    host.runner.stop(place)
    with pytest.raises(LabNotRunning, match="its sandbox is gone"):
        host.runner.netlab(place, ["status"])
