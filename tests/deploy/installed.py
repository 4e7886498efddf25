"""What is built of the project, and environments that it is installed in."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness import ROOT, Server

BUILD_SECONDS = 300


@dataclass(frozen=True)
class Dist:
    """What `python -m build` makes: the wheel comes from the source archive, so that this one is complete as well."""

    tree: Path
    """The files a clone would have; nothing else was there when it was built."""
    wheel: Path
    source: Path


@dataclass(frozen=True)
class Venv:
    """A virtual environment outside of the checkout, and an empty folder to work in."""

    folder: Path
    cwd: Path

    def command(self, name: str) -> Path:
        """The path of one of its commands."""
        return self.folder / "bin" / name

    def run(self, *command: str | Path, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run one of its commands, as somebody whose environment knows nothing of us."""
        name, *arguments = command
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.cwd), "LANG": "C.UTF-8"} | variables
        result = subprocess.run(
            [self.command(str(name)), *arguments],
            cwd=self.cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
        assert result.returncode == 0 or not check, f"{command} ended with {result.returncode}:\n{result.stderr}"
        return result


def tracked_files() -> list[str]:
    """The files that a clone has, those included that are about to be committed."""
    listed = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True
    )
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


class InstalledServer(Server):
    """A server out of a virtual environment, started in its empty folder."""

    def __init__(self, venv: Venv, state_dir: Path, **settings: object) -> None:
        super().__init__(state_dir, **settings)
        self.venv = venv

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the command as somebody types it, and wait for nothing."""
        environment = {name: value for name, value in self.environment.items() if not name.startswith("PYTHON")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.venv.command("remote-lab"), "serve", "--port", str(self.port)],
                cwd=self.venv.cwd,
                env=environment | {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.process
