"""`remote-lab run` on a terminal, with a shell in front of it as people have one."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import sys
import time
from collections.abc import Iterator

import pytest
from harness import CALL_SECONDS, Server, wait_until

from .conftest import HANGING, QUICK, User, nothing_is_left

RUN = f"{sys.executable} -m remote_lab run demo.yml --"


class Terminal:
    """A terminal with an interactive shell in it."""

    def __init__(self, user: User) -> None:
        environment = user.environment | {"PS1": "outer> ", "TERM": "dumb", "HISTFILE": ""}
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(user.folder)
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], environment)
        self.shown = ""
        self.expect("outer> ")

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._fd, text.encode())

    def expect(self, pattern: str) -> str:
        """Wait until something is shown, and forget what was shown up to its end; return what matched."""
        deadline = time.monotonic() + CALL_SECONDS
        while not (found := re.search(pattern, self.shown)):
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} was not shown:\n{self.shown}"
            if select.select([self._fd], [], [], left)[0]:
                self.shown += os.read(self._fd, 4096).decode(errors="replace")
        self.shown = self.shown[found.end() :]
        return found.group()

    def status(self) -> int:
        """The exit status of what was typed last."""
        self.type("echo status=$?.\n")
        return int(self.expect(r"status=\d+\.")[len("status=") : -1])

    def close(self) -> None:
        """Close the window, if it is still there."""
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        os.waitpid(self.pid, 0)


@pytest.fixture
def terminal(user: User) -> Iterator[Terminal]:
    user.write(QUICK)
    terminal = Terminal(user)
    yield terminal
    terminal.close()


def test_a_shell_has_its_job_control(terminal: Terminal, server: Server, user: User) -> None:
    """Ctrl-C ends a job of the shell inside, Ctrl-Z stops one, `exit 7` is the status of all."""
    terminal.type(f"PS1='inn''er> ' {RUN} bash --norc --noprofile -i\n")
    terminal.expect("inner> ")
    terminal.type("sh -c 'trap \"exit 9\" INT; echo be''gun; while :; do sleep 0.1; done'\n")
    terminal.expect("begun\r\n")
    terminal.type("\x03")
    terminal.expect("inner> ")
    assert terminal.status() == 9
    terminal.type("sh -c 'echo be''gun; exec sleep 100'\n")
    terminal.expect("begun\r\n")
    terminal.type("\x1a")
    terminal.expect("Stopped(.|\n)*inner> ")
    terminal.type("exit 7\n")
    terminal.expect("There are stopped jobs(.|\n)*inner> ")
    terminal.type("exit 7\n")
    terminal.expect("outer> ")
    assert terminal.status() == 7
    wait_until(lambda: nothing_is_left(server, user), "nothing is left")


def test_ctrl_c_ends_a_command(terminal: Terminal, server: Server, user: User) -> None:
    """The status is what the command makes of Ctrl-C."""
    # A shell that is just about to start `sleep` may lose an interrupt.
    terminal.type(f"{RUN} sh -c 'trap \"exit 9\" INT; echo ready; while :; do sleep 0.1; done'\n")
    terminal.expect("ready\r\n")
    terminal.type("\x03")
    terminal.expect("outer> ")
    assert terminal.status() == 9
    wait_until(lambda: nothing_is_left(server, user), "nothing is left")


def test_ctrl_c_ends_a_boot(terminal: Terminal, server: Server, user: User) -> None:
    """And the prompt is on a line of its own."""
    user.write(HANGING)
    terminal.type(f"{RUN} true\n")
    wait_until(lambda: "starting" in str(server.call("GET", "/debug/health").json()["labs"]), "it boots")
    terminal.type("\x03")
    terminal.expect("\nouter> ")
    assert terminal.status() == 130
    wait_until(lambda: nothing_is_left(server, user), "nothing is left")


def test_ctrl_z_stops_all_and_fg_goes_on(terminal: Terminal) -> None:
    """As with any command; its input is the terminal's before and after."""
    terminal.type(f"{RUN} sh -c 'echo ready; read word; echo got $word; read word; echo got $word'\n")
    terminal.expect("ready\r\n")
    terminal.type("one\n")
    terminal.expect("got one")
    terminal.type("\x1a")
    terminal.expect("Stopped(.|\n)*outer> ")
    terminal.type("fg\n")
    terminal.expect("\n")
    terminal.type("two\n")
    terminal.expect("got two")
    terminal.expect("outer> ")


def test_in_a_pipeline_the_command_gets_the_terminal_when_it_asks(terminal: Terminal) -> None:
    """Its output goes to another command, its questions to the person."""
    terminal.type(f"{RUN} sh -c 'echo ready; read word < /dev/tty; echo got $word' | cat\n")
    terminal.expect("ready\r\n")
    terminal.type("it\n")
    terminal.expect("got it")
    terminal.expect("outer> ")
    assert terminal.status() == 0


def test_in_the_background_a_question_waits_for_the_foreground(terminal: Terminal) -> None:
    """The shell shows that the job is stopped, as with any command."""
    terminal.type(f"{RUN} sh -c 'echo ready; read word; echo got $word' &\n")
    terminal.expect("ready\r\n")
    wait_until(lambda: _stopped(terminal), "the job is stopped")
    terminal.type("fg\n")
    terminal.expect("\n")
    terminal.type("it\n")
    terminal.expect("got it")


def test_a_window_that_is_closed_leaves_nothing(terminal: Terminal, server: Server, user: User) -> None:
    """The command inside hears of it, and the lab is given back."""
    terminal.type(f"{RUN} sh -c 'echo ready; sleep 100'\n")
    terminal.expect("ready\r\n")
    terminal.close()
    wait_until(lambda: nothing_is_left(server, user), "nothing is left")


def _stopped(terminal: Terminal) -> bool:
    terminal.type("jobs\n")
    return "Stopped" in terminal.expect(r"Running|Stopped")
