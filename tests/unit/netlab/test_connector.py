"""Running netlab: deadlines, cancelling, output."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from remote_lab.netlab import connector
from remote_lab.netlab.connector import Ending, NetlabCall, run_netlab

PYTHON = [sys.executable, "-u", "-c"]


def make_call(directory: Path, script: str, *, seconds: float = 20.0, grace_seconds: float = 0.2) -> NetlabCall:
    return NetlabCall(
        [*PYTHON, script], os.environ, directory, directory / "log", seconds=seconds, grace_seconds=grace_seconds
    )


def is_alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_output_goes_to_the_end_of_the_log_and_line_by_line_to_the_caller(tmp_path: Path) -> None:
    """What netlab says on either stream is appended to the log, and told as lines."""
    (tmp_path / "log").write_text("before\n")
    lines: list[str] = []
    script = "import sys; print('one'); print('two', file=sys.stderr); print('three')"
    result = run_netlab(make_call(tmp_path, script), on_line=lines.append)
    assert (result.ending, result.exit_status, result.succeeded) == (Ending.EXITED, 0, True)
    assert (tmp_path / "log").read_text() == "before\none\ntwo\nthree\n"
    assert lines == ["one", "two", "three"]


def test_captured_output_is_kept_apart_from_errors(tmp_path: Path) -> None:
    """A captured call returns its standard output; its errors go to the log."""
    script = "import sys; print('answer'); print('warning', file=sys.stderr); sys.exit(3)"
    call = NetlabCall([*PYTHON, script], os.environ, tmp_path, tmp_path / "log", seconds=20, capture=True)
    result = run_netlab(call)
    assert (result.output, result.exit_status, result.succeeded) == ("answer\n", 3, False)
    assert (tmp_path / "log").read_text() == "warning\n"


@pytest.mark.parametrize("reason", [Ending.DEADLINE, Ending.CANCELLED])
def test_ended_call_takes_its_children_along(tmp_path: Path, reason: Ending) -> None:
    """At the deadline or when cancelled, netlab and its children end, though all of them ignore SIGTERM."""
    script = (
        "import signal, subprocess, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print(subprocess.Popen(['sleep', '600']).pid); time.sleep(600)"
    )
    cancel = threading.Event()
    children: list[int] = []

    def on_line(line: str) -> None:
        children.append(int(line))
        if reason is Ending.CANCELLED:
            cancel.set()

    seconds = 600.0 if reason is Ending.CANCELLED else 1.0
    began = time.monotonic()
    result = run_netlab(make_call(tmp_path, script, seconds=seconds), cancel=cancel, on_line=on_line)
    assert (result.ending, result.exit_status) == (reason, None)
    assert time.monotonic() - began < 5.0
    while is_alive(children[0]):  # a kill is asked for, the kernel carries it out
        assert time.monotonic() - began < 5.0
        time.sleep(0.01)


def test_background_process_that_holds_the_output_open_does_not_hold_the_call(tmp_path: Path) -> None:
    """A daemon that netlab started and that keeps its output open does not make the call last."""
    script = "import subprocess; print(subprocess.Popen(['sleep', '30'], start_new_session=True).pid)"
    lines: list[str] = []
    began = time.monotonic()
    result = run_netlab(make_call(tmp_path, script), on_line=lines.append)
    os.kill(int(lines[0]), 9)
    assert result.succeeded
    assert time.monotonic() - began < 5.0


def test_log_is_cut_when_netlab_says_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lab cannot fill the disk with its boot log."""
    monkeypatch.setattr(connector, "MAX_LOG_BYTES", 1000)
    result = run_netlab(make_call(tmp_path, "print('x' * 200_000); print('end')"))
    assert result.succeeded
    assert (tmp_path / "log").stat().st_size < 1100
    assert "the log is cut here" in (tmp_path / "log").read_text()


def test_log_that_cannot_be_opened_costs_no_descriptor(tmp_path: Path) -> None:
    """The call fails, its process ends, and nothing of it stays open."""
    call = replace(make_call(tmp_path, "import time; time.sleep(600)"), log=tmp_path / "missing/log")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError):
        run_netlab(call)
    assert os.listdir("/proc/self/fd") == before


def test_netlab_gets_no_input(tmp_path: Path) -> None:
    """A prompt of netlab's reads the end of its input at once."""
    result = run_netlab(make_call(tmp_path, "import sys; assert sys.stdin.read() == ''"))
    assert result.succeeded


def test_output_is_streamed_to_the_log_of_the_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """When asked, what netlab says is logged line by line, without escape sequences; otherwise not."""
    script = "print('\x1b[31mone\x1b[0m\a'); print('two')"
    with caplog.at_level("INFO", logger="remote_lab.netlab.output"):
        run_netlab(make_call(tmp_path, script))
        assert caplog.messages == []
        run_netlab(replace(make_call(tmp_path, script), stream=True))
    assert caplog.messages == ["one", "two"]
    assert {record.name for record in caplog.records} == {"remote_lab.netlab.output"}


def test_who_listens_may_fail_and_netlab_is_ended_all_the_same(tmp_path: Path) -> None:
    """A boot that is cancelled between two lines does not wait for the rest of netlab."""
    began = time.monotonic()

    def fail(line: str) -> None:
        raise ValueError(line)

    with pytest.raises(ValueError, match="phase"):
        run_netlab(make_call(tmp_path, "import time; print('phase'); time.sleep(600)", seconds=300), on_line=fail)
    assert time.monotonic() - began < 60


@pytest.mark.filterwarnings("ignore:subprocess [0-9]+ is still running:ResourceWarning")
def test_what_not_even_a_kill_ends_is_left_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when its disk does not answer: the caller is told at its deadline, and the log has the process."""
    sent: list[int] = []
    monkeypatch.setattr(connector.os, "killpg", lambda pid, number: sent.append(pid))
    monkeypatch.setattr(connector, "_KILL_SECONDS", 0.1)
    try:
        result = run_netlab(make_call(tmp_path, "import time; time.sleep(600)", seconds=0.2, grace_seconds=0.1))
        assert (result.ending, result.exit_status) == (Ending.DEADLINE, None)
    finally:
        monkeypatch.undo()
        for pid in set(sent):
            os.killpg(pid, signal.SIGKILL)
