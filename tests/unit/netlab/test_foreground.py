"""An operator's command in the operator's terminal, and without one."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from remote_lab.netlab.foreground import run_in_foreground
from remote_lab.netlab.site import ForegroundCall

SECONDS = 30
# Whoever has a controlling terminal can open it as /dev/tty, and type into it.
LOOK = "import os; print('device', os.fstat(os.open('/dev/tty', os.O_RDWR)) and os.ttyname(0))"
RUN = """
import sys
from pathlib import Path
from remote_lab.netlab.foreground import run_in_foreground
from remote_lab.netlab.site import ForegroundCall
sys.exit(run_in_foreground(ForegroundCall(tuple(sys.argv[1:]), {"PATH": "/usr/bin:/bin"}, Path("/"))))
"""


def call(*script: str) -> ForegroundCall:
    return ForegroundCall((sys.executable, "-c", *script), os.environ, Path("/"))


def run_under_terminal(*command: str, stdout: int | None = None) -> tuple[int, str, str]:
    """Run a command in the foreground of a new terminal; returns its status, what it said and the terminal's name."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", sys.executable, "-c", RUN, *command],
        stdin=theirs,
        stdout=theirs if stdout is None else stdout,
        stderr=theirs,
    )
    name = os.ttyname(theirs)
    os.close(theirs)
    said = b""
    try:
        while chunk := os.read(ours, 4096):
            said += chunk
    except OSError:
        pass  # the last process closed its end
    os.close(ours)
    return process.wait(SECONDS), said.decode(), name


@pytest.mark.parametrize(("script", "status"), [("pass", 0), ("import sys; sys.exit(7)", 7)])
def test_exit_status_is_that_of_the_command(script: str, status: int) -> None:
    """The operator's shell sees how netlab ended."""
    assert run_in_foreground(call(script)) == status


def test_command_ended_by_a_signal_counts_as_in_a_shell() -> None:
    """128 and the number of the signal."""
    assert run_in_foreground(call("import os; os.kill(os.getpid(), 15)")) == 143


def test_output_goes_where_the_operators_goes(capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is kept, changed or mixed."""
    run_in_foreground(call("import sys; print('out'); print('err', file=sys.stderr)"))
    assert capfd.readouterr() == ("out\n", "err\n")


def test_command_has_a_terminal_of_its_own() -> None:
    """In a terminal the command has one as well, and it is not the operator's."""
    status, said, operators = run_under_terminal(sys.executable, "-c", LOOK)
    assert status == 0, said
    assert "device /dev/pts/" in said
    assert operators not in said.split()


def test_piped_command_cannot_open_the_operators_terminal(tmp_path: Path) -> None:
    """Where only the output is piped, the operator's terminal is the command's input and nothing more."""
    with (tmp_path / "out").open("wb") as out:
        status, said, _ = run_under_terminal(sys.executable, "-c", LOOK, stdout=out.fileno())
    assert status != 0
    assert "No such device or address" in said


def test_missing_program_is_an_error() -> None:
    """It is not taken for a command that failed."""
    with pytest.raises(OSError, match="nowhere"):
        run_in_foreground(ForegroundCall(("/nowhere",), os.environ, Path("/")))
