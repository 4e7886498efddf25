"""SIGTERM, by which CI systems cancel a job: it ends a run that has a session as Ctrl-C does, so that nothing stays."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType


def heed() -> Callable[[], None]:
    """Let SIGTERM interrupt the run from here on, unless somebody else has a use for it; returns what undoes that."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return lambda: None
    signal.signal(signal.SIGTERM, _interrupt)
    return _die_again


def _die_again() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    # The next one ends the process: whoever sends two does not want to wait.
    _die_again()
    # Not pytest.exit(), which is an Exception: tests that try until something works would catch it.
    raise KeyboardInterrupt("SIGTERM")
