"""What a guard waits for: the end of the process it watches, a request, a signal, and the end of its children."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from remote_lab.local import kernel

ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SIGNALS_BYTES = 4096


class Events:
    """One for each process, made in its only thread; every wait reaps children that nobody else waits for.

    Args:
        watched: pidfd of the process whose end is waited for; None for none.
        requests: FIFO that requests come through; None for none.
    """

    def __init__(self, watched: int | None = None, requests: Path | None = None) -> None:
        self.reason: str | None = None
        """Why everything has to end; None as long as it has not."""
        self._own: list[subprocess.Popen[bytes]] = []
        self._selector = selectors.DefaultSelector()
        wake, signals = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(signals, warn_on_full_buffer=False)
        for one in (*ENDINGS, signal.SIGCHLD):
            signal.signal(one, lambda _number, _frame: None)
        self._selector.register(wake, selectors.EVENT_READ)
        self._wake = wake
        if watched is not None:
            self._selector.register(watched, selectors.EVENT_READ, "the process that needed it has ended")
        if requests is not None:
            # Read and write: without a writer it would be readable all the time.
            fifo = os.open(requests, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            self._selector.register(fifo, selectors.EVENT_READ, "it was asked to")

    def wait(self, seconds: float) -> bool:
        """Wait until something happens, at most so long; returns whether everything has to end."""
        for key, _ in self._selector.select(0.0 if self.reason else seconds):
            if key.fd == self._wake:
                self._read_signals()
            elif self.reason is None:
                self.reason = str(key.data)
        self.reap()
        return self.reason is not None

    def pause(self) -> None:
        """A short while, whatever happens."""
        time.sleep(kernel.POLL_SECONDS)
        self.reap()

    def _read_signals(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in os.read(self._wake, _SIGNALS_BYTES):
                if number in ENDINGS and self.reason is None:
                    self.reason = f"it got {signal.Signals(number).name}"

    def spawn(
        self, command: Sequence[str], environment: Mapping[str, str], output: int, errors: int
    ) -> subprocess.Popen[bytes]:
        """Start a child in a session of its own that ends with this process, with files for what it prints."""
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
            preexec_fn=kernel.ends_with(os.getpid()),  # noqa: PLW1509 - there is one thread
        )
        self._own.append(process)
        return process

    def wait_for(self, process: subprocess.Popen[bytes], seconds: float) -> int | None:
        """Return the exit status of a child, None when it goes on for longer, whatever else happens."""
        deadline = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline:
            self.pause()
        return process.poll()

    def end_children(self, seconds: float) -> bool:
        """Kill what is left of all children, and of theirs; False when some are left after so long."""
        deadline = time.monotonic() + seconds
        while left := kernel.children(os.getpid()):
            if time.monotonic() > deadline:
                return False
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.pause()
        return True

    def reap(self) -> None:
        """Bury children that ended, also those that were inherited."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                own = next((one for one in self._own if one.pid == ended.si_pid), None)
                if own is None:
                    os.waitpid(ended.si_pid, 0)
                else:
                    own.poll()
                    self._own.remove(own)
