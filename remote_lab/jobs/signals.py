"""Signals as events that the main thread waits for: none of them interrupts anything half way.

Whatever talks to the lab host does so on other threads, where no signal is delivered.
"""

from __future__ import annotations

import os
import select
import signal
from types import FrameType, TracebackType
from typing import Self

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What asks a program to end."""


class Signals:
    """A context in which signals of `ENDING` and the ends of children wake `wait()`, and do nothing else.

    Signals that were ignored at the start stay so, as `nohup` and background jobs of scripts want it.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> Self:
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        # The C handler writes the number of each signal into the pipe (signal.set_wakeup_fd).
        self._old_fd = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for signum in ENDING:
            if signal.getsignal(signum) != signal.SIG_IGN:
                self._handlers[signum] = signal.signal(signum, _noted)
        self._handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _noted)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]  # what signal.signal() returned
        signal.set_wakeup_fd(self._old_fd)
        # The pipe stays open: a thread that still calls `wake()` must not write into what comes to have its number.

    def wake(self) -> None:
        """End the current or next `wait()`; any thread may call it."""
        try:
            os.write(self._writer, b"\0")
        except OSError:
            return  # full: it wakes anyway

    def wait(self, seconds: float | None = None) -> list[signal.Signals]:
        """Wait for a signal, `wake()` or the time to be over; return the signals of `ENDING` that came, in order."""
        select.select([self._reader], [], [], seconds)
        try:
            numbers = os.read(self._reader, 4096)
        except BlockingIOError:
            return []
        return [signal.Signals(number) for number in numbers if number in ENDING]


def _noted(_signum: int, _frame: FrameType | None) -> None:
    """Do nothing: that the signal has a handler makes it wake the pipe's reader."""
