"""Runs an operator's command in a lab with the operator's own input and output; a terminal stays a terminal.

What runs in a pod may be anything, and whoever has a terminal as its controlling one can type into it (TIOCSTI). So the
command never gets the operator's: it gets a terminal of its own, between which and the operator's bytes are copied.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import signal
import subprocess
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from remote_lab.netlab.site import ForegroundCall

_CHUNK_BYTES = 65536
_POLL_SECONDS = 0.05
_SIZE_BYTES = 8
"""Of `struct winsize` (ioctl_tty(2))."""


def run_in_foreground(call: ForegroundCall) -> int:
    """Run a command to its end.

    Returns:
        its exit status; as shells have it, 128 and the signal's number when a signal ended it.
    Raises:
        OSError: it cannot be started.
    """
    run = _run_in_terminal if os.isatty(0) and os.isatty(1) else _run_with_pipes
    status = run(call)
    return status if status >= 0 else 128 - status


def _run_with_pipes(call: ForegroundCall) -> int:
    sys.stdout.flush()
    # In a session of its own, where one of the three may be a terminal but never the controlling one.
    process = subprocess.Popen(call.command, env=call.environment, cwd=call.directory, start_new_session=True)
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            return process.wait()
        except KeyboardInterrupt:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
    return process.wait()


def _run_in_terminal(call: ForegroundCall) -> int:
    ours, theirs = os.openpty()
    _copy_size(ours)
    # setsid(1) makes its standard input the controlling terminal of the new session.
    command = ("setsid", "--ctty", "--wait", *call.command)
    environment = {name: value for name, value in call.environment.items() if name != "COLUMNS"}
    try:
        process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=call.directory
        )
    except OSError:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    try:
        with _raw_terminal(), _on_resize(lambda: _copy_size(ours)):
            _copy(ours, process)
        return process.wait()
    finally:
        os.close(ours)


def _copy(terminal: int, process: subprocess.Popen[bytes]) -> None:
    """Copy between the operator and the terminal until the command has ended and said everything."""
    with selectors.DefaultSelector() as selector:
        selector.register(terminal, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)
        while True:
            ready = [key.fd for key, _ in selector.select(_POLL_SECONDS)]
            if not ready and process.poll() is not None:
                return
            if terminal in ready and not _copy_chunk(terminal, 1):
                return
            if 0 in ready and not _copy_chunk(0, terminal):
                selector.unregister(0)


def _copy_chunk(source: int, target: int) -> bool:
    """Return False at the end of the source."""
    try:
        chunk = os.read(source, _CHUNK_BYTES)
    except OSError:  # EIO: nobody has the other end of the terminal open any more
        return False
    view = memoryview(chunk)
    while view:
        view = view[os.write(target, view) :]
    return bool(chunk)


@contextmanager
def _raw_terminal() -> Iterator[None]:
    """Every key goes through as it is, Ctrl-C included."""
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSAFLUSH, before)


@contextmanager
def _on_resize(act: Callable[[], None]) -> Iterator[None]:
    def handle(_number: int, _frame: FrameType | None) -> None:
        act()

    if threading.current_thread() is not threading.main_thread():
        yield  # signals are for the main thread only; the size stays as it was
        return
    before = signal.signal(signal.SIGWINCH, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _copy_size(terminal: int) -> None:
    with suppress(OSError):
        size = fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * _SIZE_BYTES)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)
