"""Runs with servers of their own, each in a home of its own, with a stand-in for netlab: none can meet another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT, STANDIN, wait_until

from remote_lab import local

USER = Path(__file__).parent / "user.py"
CONTAINERS = ROOT / "tests" / "standin" / "clab"
START_SECONDS = 60.0
END_SECONDS = 60.0
TOPOLOGY = "nodes: [ r1, r2 ]\n"


class Home:
    """What one user has: a home folder with the list of runs, settings, and folders of runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = folder / "home/.local/state/remote-lab-runs"
        self.calls = folder / "calls.jsonl"
        self._users: list[subprocess.Popen[str]] = []
        clean = {key: value for key, value in os.environ.items() if not key.startswith("REMOTE_LAB_")}
        if "REMOTE_LAB_IMAGE_DIR" in os.environ:
            clean["REMOTE_LAB_IMAGE_DIR"] = os.environ["REMOTE_LAB_IMAGE_DIR"]
        self.environment = clean | {
            "HOME": str(folder / "home"),
            "PATH": f"{CONTAINERS}:{os.environ['PATH']}",
            "REMOTE_LAB_JOIN": "0",
            "REMOTE_LAB_PROVIDER": "clab",
            "REMOTE_LAB_NETLAB": str(STANDIN),
            "STANDIN_CALLS": str(self.calls),
        }

    def run_dir(self, name: str = "run") -> Path:
        return self.folder / name

    def start(self, name: str = "run", **told: Any) -> subprocess.Popen[str]:
        """A user process of a run, in a process group of its own."""
        process = subprocess.Popen(
            [sys.executable, str(USER), json.dumps({"run_dir": str(self.run_dir(name)), **told})],
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._users.append(process)
        return process

    def obtained(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        """What a user process says that it has."""
        assert process.stdout is not None
        has: dict[str, Any] = json.loads(process.stdout.readline())
        return has

    def obtain(self, name: str = "run", said: list[str] | None = None) -> local.LocalServer:
        """A server for this process."""
        say = [].append if said is None else said.append
        return local.obtain(self.run_dir(name), os.getpid(), self.environment, say)

    def stop(self, name: str = "run") -> list[str]:
        """End the server of a run; returns what is said about it."""
        said: list[str] = []
        local.stop(self.run_dir(name), self.environment, said.append)
        return said

    def commands(self) -> list[str]:
        """The commands that netlab got so far."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [json.loads(line)["argv"][0] for line in lines]

    def processes(self, part: str = "") -> dict[int, str]:
        """Command lines of all processes that belong to runs of this home, by pid: guards, servers, netlab."""
        found = {}
        for process in Path("/proc").iterdir():
            try:
                if process.name.isdigit() and f"HOME={self.folder}/home".encode() in (process / "environ").read_bytes():
                    found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue  # ended meanwhile
        return {pid: line for pid, line in found.items() if part in line}

    def guard_pid(self, name: str = "run") -> int:
        """The guard of a run."""
        (pid,) = self.processes(f'remote_lab.local.guard {{"run_dir": "{self.run_dir(name)}"')
        return pid

    def wait_until_gone(self, name: str = "run") -> None:
        """Wait until no process, no folder and no entry of a run is left."""
        wait_until(lambda: not self.run_dir(name).exists(), f"{name} is removed", END_SECONDS)
        wait_until(lambda: not self.processes(), "no process is left", END_SECONDS)
        assert list(self.runs.glob("*")) == []
        assert [path for path in self.folder.iterdir() if path.name.startswith(".")] == []

    def end(self) -> None:
        """End what a test left, failed or not."""
        for process in self._users:
            if process.poll() is None:
                process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        for folder in self.folder.iterdir():
            if (folder / "guard.lock").exists():
                local.stop(folder, self.environment)
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    (tmp_path / "home").mkdir()
    yield home
    home.end()


@pytest.fixture
def kill() -> Callable[[int], None]:
    """`kill -9`."""
    return lambda pid: os.kill(pid, signal.SIGKILL)
