"""Two servers of one host that cannot see each other's links, as one in a container and one beside it."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab_host import IMAGE_DIR, POOL, Host

from remote_lab.netlab import management
from remote_lab.netlab.image import Images
from remote_lab.netlab.limits import lab_limits
from remote_lab.netlab.pod import Pods, SameNumber
from remote_lab.netlab.pod_site import state_tag

pytestmark = pytest.mark.lab

SINGLE = "defaults.device: linux\nnodes: [ h1 ]\n"
_STRANGER = """
import random, sys, uuid
from ipaddress import IPv4Network
from pathlib import Path
from remote_lab.netlab import management
from remote_lab.netlab.limits import lab_limits
from remote_lab.netlab.pod import Pods
image, directory, pool = sys.argv[1:]
free = management.free_numbers
management.free_numbers = lambda pool: random.sample(free(pool)[99:199], 1)  # tests beside this one take the first
pods = Pods(uuid.uuid4().hex[:16], IPv4Network(pool), lab_limits())
network = pods.claim("theirs")
pid = pods.start("theirs", network, Path(image), Path(directory), {})
print(network.number, pid, flush=True)
sys.stdin.read()
print(pods.end("theirs", deadline=float("inf")), flush=True)
"""


@dataclass
class Stranger:
    """A pod of a server in a network namespace of its own."""

    number: int
    pid: int

    @property
    def is_alive(self) -> bool:
        return Path(f"/proc/{self.pid}/exe").exists()


@pytest.fixture
def image(host: Host) -> Path:
    found = Images(IMAGE_DIR).find()
    assert found is not None
    return found


@pytest.fixture
def stranger(image: Path, tmp_path: Path) -> Iterator[Stranger]:
    command = ["unshare", "--net", sys.executable, "-c", _STRANGER, str(image), str(tmp_path), str(POOL)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        number, pid = process.stdout.readline().split()
        yield Stranger(int(number), int(pid))
        process.stdin.close()
        assert process.stdout.read() == "None\n"


@pytest.fixture
def same_number(stranger: Stranger, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stranger took its number between our look and our claim."""
    free = management.free_numbers
    with ExitStack() as stack:
        patched = stack.enter_context(monkeypatch.context())
        looks = iter([[stranger.number]])
        patched.setattr(management, "free_numbers", lambda pool: next(looks, None) or free(pool))
        yield


@pytest.mark.usefixtures("same_number")
def test_a_number_that_another_sandbox_has_is_given_back(host: Host, stranger: Stranger) -> None:
    """The lab boots with another one, and the stranger is left alone."""
    place = host.place(SINGLE)
    assert [device.name for device in host.boot(place)] == ["h1"]
    assert host.pod(place).number != stranger.number
    assert stranger.is_alive


@pytest.mark.usefixtures("same_number")
def test_who_comes_second_ends_and_leaves_the_other_alone(
    host: Host, image: Path, stranger: Stranger, tmp_path: Path
) -> None:
    """The number alone would end both."""
    pods = Pods(state_tag(host.state_dir), POOL, lab_limits())
    lab_id = str(uuid.uuid4())
    network = pods.claim(lab_id)
    assert network.number == stranger.number
    with pytest.raises(SameNumber, match=f"has the number {stranger.number} as well"):
        pods.start(lab_id, network, image, tmp_path, {})
    assert pods.find(lab_id) == []
    assert stranger.is_alive
    assert pods.end(lab_id, deadline=float("inf")) is None
    assert stranger.is_alive
