"""The course of `remote-lab run`: wait for the lab, run the command, give everything back, whatever comes between.

The main thread waits for signals, for the command and for the `Stay`, which does its waiting on threads of its own:
so nothing is ever cut short half way, and a signal that comes in the wrong moment is not lost.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import click

from remote_lab.jobs.child import Child
from remote_lab.jobs.signals import Signals
from remote_lab.jobs.stay import Stay, Wish

Answer = TypeVar("Answer")

NO_LAB = 1
NOTE_SECONDS = 0.5
"""Between two looks at whether the session has its id by now."""
CLEAR = "\r\x1b[K"
FAREWELL_SECONDS = 2.0
"""How long a stay that was called off may take to notice it; its session has ended by then in any case."""


class NotFound(click.ClickException):
    """There is no such command; the exit status is that of shells."""

    exit_code = 127

    def __init__(self, word: str) -> None:
        super().__init__(f"{word}: command not found")


class NotExecutable(click.ClickException):
    """The command is no program; the exit status is that of shells."""

    exit_code = 126

    def __init__(self, word: str) -> None:
        super().__init__(f"{word}: cannot be executed")


def check_command(word: str) -> None:
    """Raise `NotFound` or `NotExecutable` for what a shell would not start either."""
    if not shutil.which(word):
        raise NotExecutable(word) if shutil.which(word, mode=os.F_OK) else NotFound(word)


class Course:
    """One run of a command, from its place in the queue to its exit status."""

    def __init__(self, wish: Wish, command: tuple[str, ...], signals: Signals) -> None:
        self._command = command
        self._signals = signals
        self._stay = Stay(wish, say)
        self._impatient = False
        _show_progress()

    def carry_out(self) -> int:
        """1. Wait for the lab. 2. Run the command. 3. Give everything back. Return the exit status.

        Raises click.ClickException when there is no lab, or no way to start the command.
        """
        beginning = self._submit(self._stay.begin)
        interruption = self._wait(beginning)
        if interruption:
            say(f"{interruption.name}: giving everything back.")
            self._finish(self._submit(self._stay.cancel))
            self._finish(beginning, FAREWELL_SECONDS)
        try:
            return 128 + interruption if interruption else self._run_command(_variables(beginning))
        finally:
            self._finish(self._submit(self._stay.end))

    def _run_command(self, variables: dict[str, str]) -> int:
        try:
            child = Child(self._command, os.environ | variables)
        except FileNotFoundError as error:
            raise NotFound(self._command[0]) from error
        except OSError as error:
            raise NotExecutable(self._command[0]) from error
        watching = self._submit(self._stay.watch)
        while not child.look():
            for signum in self._signals.wait():
                if signum != signal.SIGINT:
                    say(f"{signum.name}: ending the command, then giving everything back.")
                    child.end(self._signals, signum)
                    return 128 + signum
                child.send(signum)
            if watching.done() and child.status is None and not child.look():
                say(f"The lab is gone: {watching.result()} Ending the command.")
                child.end(self._signals, signal.SIGTERM)
                return NO_LAB
        assert child.status is not None  # noqa: S101  # look() said so
        return child.status

    def _submit(self, work: Callable[[], Answer]) -> Future[Answer]:
        """Do something on a thread that nobody has to wait for: the lab host may let it wait for minutes."""
        future: Future[Answer] = Future()

        def do() -> None:
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001  # whoever asks for the result gets it
                future.set_exception(error)
            self._signals.wake()

        threading.Thread(target=do, daemon=True).start()
        return future

    def _wait(self, future: Future[Answer]) -> signal.Signals | None:
        """Wait until something is done; return the signal that came first, None when it is done."""
        while not future.done():
            for signum in self._signals.wait(NOTE_SECONDS):
                return signum
            self._stay.note()
        return None

    def _finish(self, future: Future[Any], seconds: float | None = None) -> None:
        """Wait until something is done, whatever signals come, or until the time is over.

        The first Ctrl-C from here is told what is going on; the second leaves at once.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while not future.done():
            remaining_seconds = None if deadline is None else deadline - time.monotonic()
            if remaining_seconds is not None and remaining_seconds <= 0:
                return
            for signum in self._signals.wait(remaining_seconds):
                if signum != signal.SIGINT:
                    continue
                if self._impatient:
                    os._exit(128 + signum)
                self._impatient = True
                session = self._stay.session_id
                rest = f", and session {session[:8]} stays until the lab host misses it" if session else ""
                say(f"Still giving back. Once more Ctrl-C leaves at once{rest}.")


def _variables(beginning: Future[dict[str, str]]) -> dict[str, str]:
    """Return what the lab host gave, or say why it gave none."""
    try:
        return beginning.result()
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error


def say(line: str) -> None:
    """Print a line for people, on stderr as standard output is the command's; a terminal that is gone hears nothing."""
    with contextlib.suppress(OSError):
        # The client's live line may stand there.
        click.echo(f"{CLEAR if sys.stderr.isatty() else ''}remote-lab: {line}", err=True)


def _show_progress() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("remote-lab: %(message)s"))
    log = logging.getLogger("remote_lab.client")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
