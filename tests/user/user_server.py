"""A server that an ordinary user runs, and what root sees of its labs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harness import Server
from ordinary_user import OrdinaryUser

from remote_lab.client import DeviceInfoDto
from remote_lab.netlab.pod_site import state_tag
from remote_lab.netlab.rootless.keepers import TAG_WORD

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


def keepers(server: UserServer) -> list[int]:
    """The pids of the keepers of a server's pods; forwarders have the same command line, and a keeper as parent."""
    tag = f"{TAG_WORD}:{state_tag(server.state_dir)}:".encode()
    parents = {}
    for pid in server.user.processes():
        try:
            if tag in Path(f"/proc/{pid}/cmdline").read_bytes():
                parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    return [pid for pid, parent in parents.items() if parent not in parents]


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
