"""How far things are, for people: lines in the log, or one line of a terminal that is written anew."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from typing import TextIO

log = logging.getLogger("remote_lab.client")

COLUMNS_DEFAULT = 80


class Progress:
    """Tells where a client is.

    Everything is logged at INFO on the logger `remote_lab.client`. When `live` is a terminal, it shows the state as one
    line that is written anew; log handlers that write to a terminal are then passed over, those of files are not.
    """

    def __init__(self, live: TextIO | None = None) -> None:
        self._live = live if live is not None and _is_terminal(live) and os.environ.get("TERM") != "dumb" else None
        self._subject: object = None
        self._logged_at = 0.0

    @property
    def is_live(self) -> bool:
        """Whether there is a line that wants to be kept up to date."""
        return self._live is not None

    def say(self, line: str) -> None:
        """Something happened."""
        self._subject = None
        self._show(line)
        self._log(logging.INFO, line)

    def warn(self, line: str) -> None:
        """Something went wrong that is being dealt with."""
        self._subject = None
        self._show(line)
        self._log(logging.WARNING, line)

    def state(self, line: str, subject: object, every_seconds: float) -> None:
        """Things stand so: a log has it when `subject` is another than before, and again after so many seconds."""
        self._show(line)
        now = time.monotonic()
        if subject != self._subject or now - self._logged_at >= every_seconds:
            self._subject, self._logged_at = subject, now
            self._log(logging.INFO, line)

    def clear(self) -> None:
        """Leave the terminal as if nothing had been shown."""
        self._write("\r\x1b[K")

    def _show(self, line: str) -> None:
        if self._live is not None:
            room = _columns(self._live) - 1
            shown = _printable(line)
            self._write("\r" + (shown if len(shown) <= room else shown[: max(0, room - 3)] + "...") + "\x1b[K")

    def _write(self, text: str) -> None:
        if self._live is None:
            return
        try:
            self._live.write(text)
            self._live.flush()
        except (OSError, ValueError):  # hung up, or closed; the log has it all
            self._live = None

    def _log(self, level: int, line: str) -> None:
        if self._live is None:
            log.log(level, "%s", _printable(line))
        elif log.isEnabledFor(level):
            record = log.makeRecord(log.name, level, __file__, 0, "%s", (_printable(line),), None)
            for handler in _handlers(log):
                if level >= handler.level and not _is_terminal(getattr(handler, "stream", None)):
                    handler.handle(record)


def _handlers(logger: logging.Logger | None) -> Iterator[logging.Handler]:
    """Yield the handlers that a record of this logger goes to."""
    while logger is not None:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None


def _is_terminal(stream: object) -> bool:
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]  # whatever a handler calls its stream
    except (AttributeError, ValueError):
        return False


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or COLUMNS_DEFAULT
    except (OSError, ValueError):
        return COLUMNS_DEFAULT


def _printable(line: str) -> str:
    """What others wrote into it (a purpose, a file name) moves no cursor."""
    return "".join(character if character.isprintable() else "?" for character in line)
