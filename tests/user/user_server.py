"""A server that an ordinary user runs, and what root sees of its labs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Protocol

from harness import Server
from ordinary_user import OrdinaryUser

from remote_lab.client import DeviceInfoDto
from remote_lab.netlab.pod_site import state_tag
from remote_lab.netlab.rootless.keepers import TAG_WORD
from remote_lab.netlab.spares import is_spare

SSH = ["ssh", "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]


class UserServer(Server):
    """A server in the user's home; what the tests do to it, root does."""

    def __init__(self, user: OrdinaryUser, name: str, **settings: object) -> None:
        super().__init__(user.home / name, **settings)
        self.user = user

    def spawn(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command("serve", "--port", str(self.port), *self.options),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self.process

    def command(self, *words: str) -> list[str]:
        """A command line of `remote-lab` that the user types, with the settings of this server."""
        settings = [f"REMOTE_LAB_{name}={value}" for name, value in self.settings.items()]
        return self.user.command("env", *settings, sys.executable, "-m", "remote_lab", *words)


class HasPods(Protocol):
    """A server, or what stands for one."""

    user: OrdinaryUser
    state_dir: Path


def keepers(server: HasPods) -> list[int]:
    """The pids of the keepers of a server's labs."""
    return [pid for pid, lab_id in _keepers(server).items() if not is_spare(lab_id)]


def spares(server: HasPods) -> list[int]:
    """Those of its spare sandboxes: one, or while one is made for the next boot none."""
    return [pid for pid, lab_id in _keepers(server).items() if is_spare(lab_id)]


def processes_of_labs(server: HasPods) -> list[int]:
    """The pids of all that runs in pods of the user, but for the spares of a server."""
    waiting = {namespace for keeper in spares(server) for pid in children(keeper) if (namespace := _namespace(pid))}
    return [pid for pid in server.user.processes_of_labs() if _namespace(pid) not in waiting]


def _namespace(pid: int) -> Path | None:
    """The user namespace of a process; of all in a pod and who entered it, that of the pod."""
    try:
        return Path(f"/proc/{pid}/ns/user").readlink()
    except OSError:
        return None


def lab_of(keeper: int) -> str:
    """The id at the end of a keeper's command line."""
    words = Path(f"/proc/{keeper}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    return words[-1].decode().split(":")[2]


def _keepers(server: HasPods) -> dict[int, str]:
    """The keepers of a server and their labs; forwarders have the same command line, and a keeper as parent."""
    tag = f"{TAG_WORD}:{state_tag(server.state_dir)}:".encode()
    parents, labs = {}, {}
    for pid in server.user.processes():
        try:
            if tag in Path(f"/proc/{pid}/cmdline").read_bytes():
                labs[pid] = lab_of(pid)
                parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue  # ended meanwhile, or a first process of a pod: its last argument is none of these
    return {pid: labs[pid] for pid, parent in parents.items() if parent not in parents}


def children(pid: int) -> list[int]:
    """The pids of the children of a process, the oldest first."""
    return sorted(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def ssh(device: DeviceInfoDto, command: str) -> str:
    """What a command prints on a device, by ssh with the lab's key and nothing else but what the device says."""
    assert device.key_file is not None
    way = ["-i", str(device.key_file), "-o", "PasswordAuthentication=no", "-p", str(device.port)]
    words = [*SSH, *way, "-o", "LogLevel=ERROR", f"{device.username}@{device.host}", command]
    result = subprocess.run(words, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout
