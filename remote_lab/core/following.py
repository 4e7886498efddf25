"""Following a boot log while it grows: lines, phases and the end, for whoever shows them to somebody."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from remote_lab.core.inspection import LabInspection
from remote_lab.core.views import BootLog

LOOK_SECONDS = 0.25
SILENCE_SECONDS = 15.0
CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True)
class LogEvent:
    """Something that happened in a boot."""

    kind: str
    """line, phase, end; alive when nothing happened for a while."""
    text: str = ""
    """The line without its end, the phase, the state in which the lab is now."""
    offset: int | None = None
    """Of the byte behind the line: where to go on after a broken connection."""


class LogFollower:
    """Yields what happens in a boot log until the boot is over; holds a place for streams until it is closed."""

    def __init__(self, inspection: LabInspection, session_id: str, offset: int = 0) -> None:
        """Begin behind `offset` bytes of the log; LabNotFound, TooManyHeldRequests."""
        self._inspection = inspection
        self._log: BootLog = inspection.boot_log(session_id)
        self._offset = offset
        self._held = ExitStack()
        self._held.enter_context(inspection.streams.place())
        self._events = self._follow()

    def __iter__(self) -> Iterator[LogEvent]:
        return self

    def __next__(self) -> LogEvent:
        return next(self._events)

    def close(self) -> None:
        """Give the place back; also when nothing was ever asked of this object."""
        self._events.close()
        self._held.close()

    def _follow(self) -> Generator[LogEvent, None, None]:
        changes = self._inspection.database.changes
        phase: str | None = None
        quiet_since = time.monotonic()
        while True:
            count = changes.count()
            state, now_in = self._inspection.boot_progress(self._log.lab_id)
            if now_in is not None and now_in != phase:
                phase = now_in
                yield LogEvent("phase", phase)
            lines = list(self._new_lines(is_last=now_in is None))
            yield from lines
            if now_in is None and not lines:
                yield LogEvent("end", state)
                return
            if changes.closed:
                return
            if lines:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > SILENCE_SECONDS:
                quiet_since = time.monotonic()
                yield LogEvent("alive")
            if not lines:
                changes.wait(count, LOOK_SECONDS)

    def _new_lines(self, is_last: bool) -> Iterator[LogEvent]:
        """The whole lines behind the offset; at the end of a boot also one that was never ended."""
        try:
            with self._log.path.open("rb") as stream:
                stream.seek(self._offset)
                chunk = stream.read(CHUNK_BYTES)
        except FileNotFoundError:
            return  # the lab has gone, and its log with it
        *lines, rest = chunk.split(b"\n")
        if rest and (is_last or (len(chunk) == CHUNK_BYTES and not lines)):
            lines.append(rest)
        for line in lines:
            self._offset = min(self._offset + len(line) + 1, self._offset + len(chunk))
            yield LogEvent("line", line.decode(errors="replace").rstrip("\r"), self._offset)
