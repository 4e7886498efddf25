"""Where no server can be had, that is said in the words of those who know why."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import Mock

import pytest
import requests
from harness import CALL_SECONDS, wait_until

from remote_lab import local

from .conftest import Home

FOLLOWED = str(Path(local.__file__).parent)
MOST_LINES = 1000
TAKEN_FIRST = """
import remote_lab.local.kernel as kernel
find, taken = kernel.free_port, [{port}, {port}, {port}]
kernel.free_port = lambda: taken.pop() if taken else find()
"""


def test_a_machine_that_cannot_run_labs_says_what_the_doctor_says(home: Home) -> None:
    """Finding, detail and remedy; nothing is left of the try."""
    home.environment["PATH"] = str(home.folder)
    with pytest.raises(local.NoLabsHere) as refusal:
        home.obtain()
    sentence = str(refusal.value)
    assert sentence.startswith("provider clab: missing: containerlab, docker. ")
    assert "apt-get install docker.io" in sentence
    home.wait_until_gone()


def test_a_setting_that_cannot_be_used_is_named(home: Home) -> None:
    """With its value and what is expected."""
    home.environment["REMOTE_LAB_SLOTS"] = "many"
    with pytest.raises(local.NoLabsHere, match=r"REMOTE_LAB_SLOTS: 'many' .*a whole number from 1 to 64"):
        home.obtain()
    home.wait_until_gone()


def test_a_plain_install_says_what_to_install(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """And that there may be a lab host somewhere."""
    monkeypatch.setitem(sys.modules, "flask", None)
    with pytest.raises(local.NoLabsHere) as refusal:
        home.obtain()
    assert "flask is missing" in str(refusal.value)
    assert "pip install 'remote-lab[server]', or set REMOTE_LAB_URL" in str(refusal.value)
    assert not home.run_dir().exists()


def test_a_server_that_breaks_is_no_machine_without_labs(home: Home) -> None:
    """A broken installation is an error, with the end of the log."""
    (home.folder / "gunicorn.py").write_text("raise RuntimeError('gunicorn is broken')\n")
    home.environment["PYTHONPATH"] = str(home.folder)
    with pytest.raises(local.LocalServerFailed, match="gunicorn is broken"):
        home.obtain()
    home.wait_until_gone()


def test_a_port_that_somebody_took_meanwhile_is_not_insisted_on(home: Home) -> None:
    """The server starts on another; who has the port is not taken for it, whatever it answers."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (home.folder / "sitecustomize.py").write_text(TAKEN_FIRST.format(port=port))
        home.environment["PYTHONPATH"] = str(home.folder)
        server = home.obtain()
        assert not server.url.endswith(f":{port}")
        assert requests.get(f"{server.url}/healthz", timeout=CALL_SECONDS).status_code == 204
        server.stop()


def test_a_start_that_is_interrupted_leaves_nothing(home: Home) -> None:
    """By Ctrl-C at any moment of it, the one in which there is no guard yet included."""
    for moment in ("obtain.lock", "guard.log", "guard.lock", "server.log", "server.json"):
        user = home.start()
        wait_until((home.run_dir() / moment).exists, f"{moment} is there")
        os.killpg(user.pid, signal.SIGINT)
        user.wait(CALL_SECONDS)
        wait_until(lambda: not home.run_dir().exists(), f"nothing is left after {moment}")
    home.wait_until_gone()


# A file that is open where the interrupt comes is closed by the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_start_that_is_interrupted_at_any_line_leaves_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line of ours up to the start of the guard, one Ctrl-C each."""
    launched = Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr(local.server.subprocess, "run", launched)
    for line in range(MOST_LINES):
        with pytest.raises(KeyboardInterrupt), interrupted_at(line):
            home.obtain()
        assert not home.run_dir().exists(), f"line {line}"
        home.wait_until_gone()
        if launched.called:
            return
    raise AssertionError(f"no guard was started within {MOST_LINES} lines")


@contextmanager
def interrupted_at(line: int) -> Iterator[None]:
    """Within it, Ctrl-C comes as soon as so many lines of remote_lab.local ran."""
    ran = 0

    def follow(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        nonlocal ran
        if not frame.f_code.co_filename.startswith(FOLLOWED):
            return None
        if event == "line":
            ran += 1
            if ran > line:
                sys.settrace(None)
                raise KeyboardInterrupt
        return follow

    sys.settrace(follow)
    try:
        yield
    finally:
        sys.settrace(None)


def test_modules_of_the_working_directory_are_not_imported(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project may have a logging.py."""
    (home.folder / "logging.py").write_text("raise RuntimeError('wrong logging')\n")
    monkeypatch.chdir(home.folder)
    home.obtain().stop()
    home.wait_until_gone()


def test_a_start_that_takes_long_is_told_of(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the words of the server's log."""
    monkeypatch.setattr(local.server, "QUIET_SECONDS", 0.0)
    said: list[str] = []
    home.obtain(said=said)
    assert any(line.startswith("Remote Lab Manager ") for line in said), said


def test_importing_it_costs_little() -> None:
    """Neither requests nor anything of the server, nor what speaks HTTP."""
    modules = ("requests", "urllib3", "urllib.request", "http.client", "flask", "sqlalchemy", "ctypes")
    code = f"import sys, remote_lab.local; print([one for one in {modules} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path("/"))
    assert done.stdout == "[]\n"
