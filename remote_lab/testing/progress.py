"""How a person sees how far the lab is: lines of the log, and on a terminal one live line that leaves no trace."""

from __future__ import annotations

import io
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

import pytest

from remote_lab.client.progress import Progress

CLEAR_LINE = "\r\x1b[K"
"""What `Progress.clear` writes."""
PATIENCE_SECONDS = 1.0


@dataclass(frozen=True)
class Telling:
    """Where a run tells people how far it is."""

    say: Callable[[str], None]
    live: TextIO | None
    """A terminal that pytest is not in the middle of using; None where there is none, or the log is on it."""


@contextmanager
def telling(config: pytest.Config) -> Iterator[Telling]:
    """Let progress through: `-o log_cli=true` shows lines at INFO without a level having to be set for it."""
    logger = logging.getLogger("remote_lab")
    level = logger.level
    if level == logging.NOTSET and not logger.isEnabledFor(logging.INFO):
        logger.setLevel(logging.INFO)
    live = _terminal(config)
    progress = Progress(live)
    try:
        yield Telling(progress.say, live)
    finally:
        progress.clear()
        logger.setLevel(level)


def _terminal(config: pytest.Config) -> _TerminalOfPytest | None:
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    capture: Any = config.pluginmanager.get_plugin("capturemanager")
    logs_to_terminal = config.getini("log_cli") or config.getoption("log_cli_level", default=None)
    if reporter is None or capture is None or logs_to_terminal or hasattr(config, "workerinput"):
        return None
    if not reporter.isatty or config.option.verbose < 0:
        return None
    return _TerminalOfPytest(reporter, capture)


class _TerminalOfPytest(io.StringIO):
    """The real terminal while pytest captures, one line below what pytest has written.

    What is over within a second is not shown: each use costs the line of results that pytest was about to continue.
    """

    def __init__(self, reporter: Any, capture: Any) -> None:
        super().__init__()
        self._reporter = reporter
        self._capture = capture
        self._busy_since: float | None = None
        self._is_shown = False

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return sys.__stdout__.fileno() if sys.__stdout__ else super().fileno()

    def write(self, text: str) -> int:
        now = time.monotonic()
        if text == CLEAR_LINE:
            if self._is_shown:
                self._emit(text)
            self._busy_since, self._is_shown = None, False
        elif self._busy_since is None:
            self._busy_since = now
        elif now - self._busy_since >= PATIENCE_SECONDS:
            self._emit(text)
            self._is_shown = True
        return len(text)

    def _emit(self, text: str) -> None:
        with self._capture.global_and_fixture_disabled():
            self._reporter.ensure_newline()
            sys.stdout.write(text)
            sys.stdout.flush()
