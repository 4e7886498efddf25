"""A server's share of this machine, without the server: places for labs and a runner."""

from __future__ import annotations

import os
import subprocess
import threading
import uuid
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

from remote_lab.netlab.limits import LabLimits, lab_limits
from remote_lab.netlab.netns.lab import up_name
from remote_lab.netlab.pod import Pod, Pods, enter_command
from remote_lab.netlab.pod_site import state_tag
from remote_lab.netlab.runner import Device, LabPlace, Runner

EXAMPLES = Path(__file__).parents[2] / "examples"
POOL = IPv4Network("198.18.0.0/16")
COMMAND_SECONDS = 30
IMAGE_DIR = Path(os.environ.get("REMOTE_LAB_IMAGE_DIR") or "/var/cache/remote-lab/images")


@dataclass
class Host:
    """A server's share of this machine: a state folder and the runner of it."""

    state_dir: Path
    runner: Runner
    places: list[LabPlace] = field(default_factory=list)

    def place(self, topology: str, *, slot: int = 1, **extra_files: str) -> LabPlace:
        """Make the working directory of a new lab; `extra_files` are path -> text, with `__` for `.`."""
        lab_id = str(uuid.uuid4())
        directory = self.state_dir / lab_id
        directory.mkdir()
        (directory / "topology.yml").write_text(topology)
        for name, text in extra_files.items():
            path = directory / name.replace("__", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        place = LabPlace(lab_id, slot, directory, "topology.yml", self.state_dir / f"{lab_id}.log")
        self.places.append(place)
        return place

    def boot(self, place: LabPlace) -> list[Device]:
        """Boot a lab; its nodes are started once, although that begins before netlab asks for it."""
        devices = self.runner.boot(place, cancel=threading.Event(), report_phase=lambda phase: None)
        started = [name for line in place.log.read_text().splitlines() if (name := up_name(line))]
        assert len(started) == len(set(started)), started
        return devices

    def pod(self, place: LabPlace) -> Pod:
        (pod,) = Pods(state_tag(self.state_dir), POOL, lab_limits()).find(place.lab_id)
        return pod

    def inside(self, place: LabPlace, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the pod of a lab, as its root."""
        pid = self.pod(place).pid
        assert pid is not None
        environment = {"PATH": "/opt/remote-lab/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
        return subprocess.run(
            enter_command(pid, command),
            capture_output=True,
            text=True,
            env=environment,
            timeout=COMMAND_SECONDS,
            check=False,
        )


def make_runner(state_dir: Path, *, boot_seconds: float = 60.0, limits: LabLimits | None = None) -> Runner:
    return Runner(
        provider="netns",
        netlab=None,
        image=os.environ.get("REMOTE_LAB_IMAGE") or None,
        image_dir=IMAGE_DIR,
        image_mirror=os.environ.get("REMOTE_LAB_IMAGE_MIRROR") or None,
        state_dir=state_dir,
        management_pool=POOL,
        boot_seconds=boot_seconds,
        teardown_seconds=20.0,
        limits=limits,
    )
