"""What goes wrong at random: each fault is done to one server, and undone as an operator or systemd would undo it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from census import Census
from harness import Server, wait_until

MAX_STOP_SECONDS = 2.0


class Faults:
    """The faults of one server, its labs and its processes."""

    def __init__(self, server: Server, census: Census, dice: random.Random) -> None:
        self._server = server
        self._census = census
        self._dice = dice
        self.all: dict[str, Callable[[], object]] = {
            "kill server": self.kill_server,
            "kill arbiter": self.kill_arbiter,
            "kill worker": self.kill_worker,
            "restart": self.restart,
            "kill pod": self.kill_pod,
            "kill node": self.kill_node,
            "kill netlab": self.kill_netlab,
            "kill during boot": self.kill_during_boot,
            "delete link": self.delete_link,
            "stop worker": self.stop_worker,
            "stop pod": self.stop_pod,
        }

    def kill_server(self) -> None:
        """Everything of it at once, as the kernel does when memory is short; somebody starts it again."""
        self._server.kill()
        self._server.start()

    def kill_arbiter(self) -> None:
        """The worker notices on its own; the next server waits for it."""
        assert self._server.process is not None
        os.kill(self._server.process.pid, signal.SIGKILL)
        self._server.process.wait()
        self._server.start()

    def kill_worker(self) -> None:
        """The arbiter starts another."""
        _signal(self._worker(), signal.SIGKILL)
        self._server.wait_until_it_answers()

    def restart(self) -> None:
        """In order, with clients in the middle of everything."""
        assert self._server.terminate() == 0
        self._server.start()

    def kill_pod(self) -> None:
        """The first process of a sandbox, and so all of it."""
        _signal(self._of_a_pod(is_pid_1=True), signal.SIGKILL)

    def kill_node(self) -> None:
        """Any other process of a lab: a node's first, a daemon, whatever is there."""
        _signal(self._of_a_pod(is_pid_1=False), signal.SIGKILL)

    def kill_netlab(self) -> None:
        """While it boots a lab, if one is being booted."""
        _signal(self._netlab(), signal.SIGKILL)

    def kill_during_boot(self) -> None:
        """The server, as soon as netlab is at work."""
        with suppress(AssertionError):
            wait_until(self._netlab, "a lab boots", 2.0)
        self.kill_server()

    def delete_link(self) -> None:
        """The management network of a lab, as somebody does who cleans up by hand."""
        if links := sorted(self._census.links()):
            name = f"rlab{self._dice.choice(links)}"
            subprocess.run(["ip", "link", "delete", name], capture_output=True, check=False)

    def stop_worker(self) -> None:
        """Nothing answers for a while, then all goes on."""
        self._stop(self._worker())

    def stop_pod(self) -> None:
        """A lab stands still for a while."""
        self._stop(self._of_a_pod(is_pid_1=False))

    def _stop(self, pid: int | None) -> None:
        _signal(pid, signal.SIGSTOP)
        time.sleep(self._dice.uniform(0.1, MAX_STOP_SECONDS))
        _signal(pid, signal.SIGCONT)

    def _worker(self) -> int | None:
        assert self._server.process is not None
        children = Path(f"/proc/{self._server.process.pid}/task/{self._server.process.pid}/children").read_text()
        return int(children.split()[0]) if children.split() else None

    def _of_a_pod(self, *, is_pid_1: bool) -> int | None:
        everybody = [one for processes in self._census.pods().values() for one in processes]
        pids = [one.pid for one in everybody if one.is_pid_1 == is_pid_1]
        return self._dice.choice(pids) if pids else None

    def _netlab(self) -> int | None:
        for processes in self._census.pods().values():
            for one in processes:
                with suppress(OSError):
                    if b"bin/netlab" in Path(f"/proc/{one.pid}/cmdline").read_bytes():
                        return one.pid
        return None


def _signal(pid: int | None, signum: int) -> None:
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)
