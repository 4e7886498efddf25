"""Servers that are started in another way: with another clock, with less of something, with less patience."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harness import Server


class ServerStarted(Server):
    """One that is started by another program, or after some statements of Python."""

    prefix: tuple[str, ...] = ()
    statements: str = ""

    def __init__(self, state_dir: Path, **settings: object) -> None:
        super().__init__(state_dir, **{"REAPER_SECONDS": 0.2, **settings})

    def spawn(self) -> subprocess.Popen[bytes]:
        code = f"{self.statements}\nfrom remote_lab.__main__ import main\nmain()"
        command = [*self.prefix, sys.executable, "-c", code, "serve", "--port", str(self.port), *self.options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment, start_new_session=True
            )
        return self.process
