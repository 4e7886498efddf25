"""What a look at a running lab costs, and that it sees the same as a thorough one: it is taken for every acquire."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator

import pytest
from harness import wait_until
from lab_host import Host

from remote_lab.netlab import management, processes, rtnetlink
from remote_lab.netlab.netns.lab import NODE_TAG

pytestmark = pytest.mark.lab

TWO = "defaults.device: linux\nnodes: [ h1, h2 ]\n"


class Efforts:
    """What was done that costs more on a busy host: processes started, and looks at all processes there are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[object] = []
        list_names, start = os.listdir, subprocess.Popen.__init__

        def listed(path: object = ".") -> list[str]:
            self.made.append(path)
            return list_names(path)  # type: ignore[call-overload]  # as it came

        def started(popen: object, command: object, *rest: object, **named: object) -> None:
            self.made.append(command)
            start(popen, command, *rest, **named)  # type: ignore[arg-type]  # as they came

        monkeypatch.setattr(os, "listdir", listed)
        monkeypatch.setattr(subprocess.Popen, "__init__", started)


def test_a_look_at_a_running_lab_starts_nothing_and_misses_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is there and all its devices are; then one dies, then the link is deleted, then the sandbox dies."""
    place = host.place(TWO)
    names = [device.name for device in host.boot(place)]
    pod = host.pod(place)
    assert pod.pid is not None
    assert pod.claim is not None
    host.runner.vanished(place)
    with monkeypatch.context() as patch:
        efforts = Efforts(patch)
        assert (host.runner.vanished(place), host.runner.dead_devices(place, names)) == (None, [])
        assert efforts.made == []
        assert host.runner.dead_devices(place, [*names, "h3"]) == ["h3"]
        assert efforts.made != []

    [h2] = [child for child in processes.children(pod.pid) if processes.command_name(child) == f"{NODE_TAG}h2"]
    os.kill(h2, signal.SIGKILL)
    wait_until(lambda: host.runner.dead_devices(place, names), "the death of h2 is seen")
    assert (host.runner.vanished(place), host.runner.dead_devices(place, names)) == (None, ["h2"])
    management.release(pod.claim)
    assert host.runner.vanished(place) == "its management network interface is gone"
    os.kill(pod.pid, signal.SIGKILL)
    wait_until(lambda: processes.read_process(pod.pid or 0) is None, "the sandbox is dead")
    assert host.runner.vanished(place) == "its sandbox is gone"
    assert host.runner.dead_devices(place, names) == names


@pytest.fixture
def link() -> Iterator[str]:
    name = f"rlt{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p"], check=True)
    yield name
    subprocess.run(["ip", "link", "delete", name], check=False)


def test_links_are_seen_as_ip_sees_them(link: str) -> None:
    """Name, index and alias of a veth, alone and among all; none that is not there, and no other kind."""
    alias = f"{'long ' * 20}ünd"
    subprocess.run(["ip", "link", "set", link, "alias", alias], check=True)
    [shown] = json.loads(subprocess.run(["ip", "-json", "link", "show", link], capture_output=True, check=True).stdout)
    expected = rtnetlink.Veth(link, shown["ifindex"], alias)
    assert rtnetlink.veth(link) == expected
    assert [found for found in rtnetlink.veths() if found.name.startswith(link) and found.alias] == [expected]
    assert rtnetlink.veth(f"{link}p") is not None
    assert rtnetlink.veth("lo") is None
    assert "lo" not in [found.name for found in rtnetlink.veths()]
    subprocess.run(["ip", "link", "delete", link], check=True)
    assert rtnetlink.veth(link) is None
