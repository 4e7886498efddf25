"""A real systemd with the unit installed, beside whatever runs this host: PID 1 of namespaces that a test made."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import CALL_SECONDS, ROOT, Server, wait_until

SYSTEMD = Path("/lib/systemd/systemd")
BOOT = Path(__file__).parent / "boot-systemd"
IDLE = "[Unit]\nDescription=Nothing\nDefaultDependencies=no\n"
WRAPPER = """#!/bin/sh
PYTHONPATH=/opt/remote-lab/tree:/opt/remote-lab/packages PYTHONDONTWRITEBYTECODE=1 exec {python} -m remote_lab "$@"
"""
HOMES = ("/home", "/root", "/run/user")


class BootedService(Server):
    """The service of docs/deploy.rst in a systemd of its own; its labs count as those of other servers of this host."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "state")
        self.folder = folder
        self.state_dir.mkdir()
        self.installed_state_dir = Path(f"/var/lib/remote-lab-{os.getpid()}-{self.port}")
        self.log = folder / "service.log"
        self.group = _cgroup2() / f"remote-lab-test-{os.getpid()}-{self.port}"
        self.outer: subprocess.Popen[bytes] | None = None

    def boot(self) -> None:
        """Start systemd and wait until it takes orders."""
        self._install()
        images = os.environ.get("REMOTE_LAB_IMAGE_DIR", "/var/cache/remote-lab/images")
        self.group.mkdir()
        join = f'echo $$ >"{self.group}/cgroup.procs"; exec "$@"'
        unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--cgroup"]
        arguments = [BOOT, self.folder, self.state_dir, self.installed_state_dir, images, sysconfig.get_path("purelib")]
        with (self.folder / "boot.log").open("wb") as log:
            command = ["setpriv", "--pdeathsig", "KILL", "sh", "-c", join, "sh", *unshare, *arguments]
            self.outer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(lambda: self.run("systemctl", "is-system-running").stdout.strip() == "running", "systemd has booted")

    def _install(self) -> None:
        installed, units = self.folder / "installed", self.folder / "units"
        (installed / "bin").mkdir(parents=True)
        units.mkdir()
        package = installed / "tree/remote_lab"
        shutil.copytree(ROOT / "remote_lab", package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "migrations", package / "migrations", dirs_exist_ok=True)
        (installed / "packages").mkdir()
        python = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
        (installed / "bin/remote-lab").write_text(WRAPPER.format(python=python))
        (installed / "bin/remote-lab").chmod(0o755)
        (units / "idle.target").write_text(IDLE)
        unit = (ROOT / "deploy/remote-lab.service").read_text()
        # Labs know their server by its state folder, and this host may have another one with the usual name.
        unit = unit.replace("StateDirectory=remote-lab", f"StateDirectory={self.installed_state_dir.name}")
        (units / "remote-lab.service").write_text(unit.replace("--port 8000", f"--port {self.port}"))
        self.add("log", f"StandardOutput=append:/shared/{self.log.name}\nStandardError=append:/shared/{self.log.name}")
        if str(python).startswith(HOMES):  # a Python that was not installed by the system
            self.add("python", f"ProtectHome=tmpfs\nBindReadOnlyPaths={python.parent.parent}")

    def add(self, name: str, settings: str) -> None:
        """What `systemctl edit` does, before systemd boots."""
        folder = self.folder / "units/remote-lab.service.d"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.conf").write_text(f"[Service]\n{settings}\n")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Type a command as root of that host."""
        assert self.outer is not None
        children = Path(f"/proc/{self.outer.pid}/task/{self.outer.pid}/children").read_text().split()
        init = children[0] if children else str(self.outer.pid)
        entered = ["nsenter", "-t", init, "-m", "-u", "-i", "-p", "-C", "--", *command]
        return subprocess.run(entered, capture_output=True, text=True, timeout=CALL_SECONDS, check=False)

    def systemctl(self, *words: str) -> str:
        """What systemctl prints; fails with the service's log when systemctl does."""
        done = self.run("systemctl", *words)
        assert done.returncode == 0, f"{words}: {done.stderr}\n{self.log.read_text()[-3000:]}"
        return done.stdout.strip()

    def end(self) -> None:
        """End systemd with all that it runs."""
        if self.outer is not None:
            self.outer.send_signal(signal.SIGKILL)
            self.outer.wait(CALL_SECONDS)
        if self.group.exists():
            wait_until(self._is_group_removed, "nothing of it runs")

    def _is_group_removed(self) -> bool:
        try:
            for folder, _, _ in os.walk(self.group, topdown=False):
                Path(folder).rmdir()
        except OSError:
            return False
        return True


def _cgroup2() -> Path:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            return Path(before.split()[4])
    raise AssertionError("this host has no cgroup v2")


@contextmanager
def booted(folder: Path) -> Iterator[BootedService]:
    """A host with the service installed and not started."""
    service = BootedService(folder)
    try:
        service.boot()
        yield service
    finally:
        service.end()
