"""The stage of attacks: a real server with a secret in every place of it, a victim's lab, and what uploads aim at."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml
from harness import Server, list_labs, running, wait_until
from hostile_watch import Bait, Watch

from remote_lab.netlab import management, processes
from remote_lab.netlab.pod_site import state_tag
from remote_lab.netlab.spares import is_spare

HERE = Path(__file__).parent
UPLOADS = HERE / "uploads"
PAYLOAD = (HERE / "payload.py").read_text()
VICTIM = "defaults.device: linux\nnodes: [ v1 ]\n# {loot}\n"
PLACES = ("/tmp", "/var/tmp", "/etc", "/root", "/home", "/usr/local/bin", "/run", "/dev/shm")
COMMAND_SECONDS = 30
_LINE = "HOSTILE "


class SecretServer(Server):
    """A server whose environment has a secret, as those of real ones may have."""

    loot = ""

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"PASSWORD": self.loot}


@dataclass(frozen=True)
class Attack:
    """An upload of `uploads/`: its files as they are sent, and what is known of it."""

    name: str
    tries: str
    runs: str
    """Where its code is expected to run: `pod`, `node`, or `never`."""
    files: Mapping[str, bytes]

    def sent(self, targets: Mapping[str, Any]) -> dict[str, bytes]:
        """Its files with its aims in them; the payload is `attack.py`."""
        mark = f"hostile-{targets['token']}".encode()
        files = {name: content.replace(b"HOSTILE", mark) for name, content in self.files.items()}
        return files | {"attack.py": f"TARGETS = {dict(targets)!r}\n{PAYLOAD}".encode()}


def read_attack(name: str) -> Attack:
    """Read one of `uploads/`."""
    folder = UPLOADS / name
    about = yaml.safe_load((folder / "about.yml").read_text())
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "about.yml"]
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    return Attack(name, about["tries"], about["runs"], files)


def attack_names() -> list[str]:
    """All of `uploads/`."""
    return sorted(folder.name for folder in UPLOADS.iterdir() if (folder / "about.yml").exists())


@dataclass
class Stage:
    """A server, a victim's lab in its second slot, and what is watched."""

    server: Server
    bait: Bait
    victim_session: str = ""
    victim_lab: str = ""
    victim_address: str = ""

    def targets(self, token: str) -> dict[str, Any]:
        """Everything an attacker could ever find out or guess, told to the attacker."""
        labs = self.server.state_dir / "labs"
        assert self.server.process is not None
        return {
            "token": token,
            "places": [*PLACES, *map(str, (self.server.state_dir, labs, self.server.state_dir.parent))],
            "files": [*map(str, self.bait.files), str(self.server.state_dir / "remote-lab.sqlite3")],
            "settings": [(path, f"|/bin/hostile-{token}") for path in self.bait.settings],
            "pids": [self.bait.pid, self.server.process.pid, *filter(None, self.pods().values())],
            "hosts": ["127.0.0.1", "::1", *self.bait.addresses(), self.victim_address],
            "ports": [self.bait.port, self.server.port, 22],
            "sockets": self.bait.sockets,
        }

    def watch(self, token: str) -> Watch:
        """What may not change from now on."""
        places = [Path(place) for place in self.targets(token)["places"]]
        return Watch(token, self.bait, places, self.server.state_dir)

    def pods(self) -> dict[str, int | None]:
        """The labs of the server that have a pod, by what the kernel knows -> the host's number of its PID 1."""
        tag = state_tag(self.server.state_dir)
        inits = {process.number: process.pid for process in processes.pod_processes() if process.is_pid_1}
        claims = [claim for claim in management.claims() if claim.owner == tag and not is_spare(claim.lab_id)]
        return {claim.lab_id: inits.get(claim.number) for claim in claims}

    def send(self, session_id: str, files: Mapping[str, bytes], **arguments: Any) -> requests.Response:
        """`POST /lab` with these files, `topology.yml` as the topology."""
        parts = [("topology", ("topology.yml", files["topology.yml"]))]
        parts += [("extra_files", (name, content)) for name, content in files.items() if name != "topology.yml"]
        return self.server.call("POST", "/lab", session_id, files=parts, **arguments)

    def attackers_lab(self) -> str:
        """The lab that is not the victim's, empty when there is none."""
        return next((lab_id for lab_id in list_labs(self.server.state_dir) if lab_id != self.victim_lab), "")

    def report(self, token: str, runs: str) -> dict[str, Any] | None:
        """What the payload told; None when it never ran."""
        for log in self.server.state_dir.glob("labs/*/boot.log"):
            for line in log.read_text(errors="replace").splitlines():
                if _LINE in line and token in line:
                    said: dict[str, Any] = json.loads(line[line.index(_LINE) + len(_LINE) :])
                    return said
        command = ["/bin/cat", f"/hostile-{token}"]
        if runs == "node":
            command = ["/opt/remote-lab/bin/netns-lab", "exec", "h1", *command]
        said_inside = self.inside(self.attackers_lab(), *command)
        return json.loads(said_inside) if said_inside.startswith("{") else None

    def inside(self, lab_id: str, *command: str) -> str:
        """What a command prints in the pod of a lab; empty when there is none."""
        pid = self.pods().get(lab_id)
        if pid is None:
            return ""
        namespaces = ("-U", "-n", "-m", "-u", "-i", "-p", "-r", "-w", "-S", "0", "-G", "0")
        environment = {"PATH": "/opt/remote-lab/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
        return subprocess.run(
            ["nsenter", "-t", str(pid), *namespaces, "--", *command],
            capture_output=True,
            text=True,
            env=environment,
            timeout=COMMAND_SECONDS,
            check=False,
        ).stdout

    def end(self, session_id: str) -> None:
        """End an attacker's session and wait until its lab is down."""
        self.server.end_session(session_id)
        wait_until(lambda: self.attackers_lab() == "", "the attacker's lab is gone")
        wait_until(lambda: not self.pods().keys() - {self.victim_lab}, "the attacker's pod is gone")
        assert self.pods().keys() == {self.victim_lab}, "the victim's pod is gone"

    def victim(self) -> tuple[int, bool, list[str]]:
        """How the victim is."""
        answer = self.server.call("GET", "/lab", self.victim_session)
        lab = answer.json()
        return answer.status_code, lab["running"], [device["name"] for device in lab["devices"]]


@contextmanager
def open_stage(folder: Path) -> Iterator[Stage]:
    """Set the stage; everything is gone after it, whatever happened on it."""
    state_dir = folder / "state"
    # The victim only has its lab, and says nothing for as long as a worker has attacks to try.
    settings = {"SLOTS": 2, "ACTIVE_SECONDS": 7200, "BOOT_SECONDS": 40, "STREAM_OUTPUT": 1, "REAPER_SECONDS": 0.5}
    server = SecretServer(state_dir, PROVIDER="netns", **settings)
    with Bait.spread(folder, state_dir / "private") as bait:
        server.loot = bait.loot["environment"]
        with running(server):
            stage = Stage(server, bait)
            opened = server.call("POST", "/session", json={"purpose": bait.loot["database"]}).json()
            stage.victim_session = opened["session_id"]
            server.wait_active(stage.victim_session)
            answer = server.acquire(stage.victim_session, VICTIM.format(loot=bait.loot["victim"]))
            assert answer.status_code == 200, answer.text
            [stage.victim_lab] = list_labs(state_dir)
            stage.victim_address = answer.json()["devices"][0]["raw"]["mgmt"]["ipv4"]
            yield stage


def new_token() -> str:
    """What marks one attack, wherever it leaves anything."""
    return secrets.token_hex(8)
