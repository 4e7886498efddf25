"""What people see of a client: one line of a terminal, or lines in a log."""

from __future__ import annotations

import fcntl
import io
import logging
import os
import pty
import select
import struct
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from remote_lab.client.progress import Progress


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[TextIO, int]]:
    """A real terminal of 30 columns: the stream for a program, and the descriptor where its screen is read."""
    monkeypatch.setenv("TERM", "xterm")
    screen, program = pty.openpty()
    fcntl.ioctl(program, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 30, 0, 0))
    with os.fdopen(program, "w", encoding="utf-8") as stream:
        yield stream, screen
    os.close(screen)


def read(screen: int) -> str:
    """Everything that was written; a terminal hands it over in pieces."""
    shown = b""
    while select.select([screen], [], [], 0.2)[0]:
        shown += os.read(screen, 1000)
    return shown.decode()


def test_a_terminal_gets_one_line(terminal: tuple[TextIO, int], caplog: pytest.LogCaptureFixture) -> None:
    """Each state takes the place of the one before, no wider than the terminal, and nothing is left at the end."""
    stream, screen = terminal
    progress = Progress(stream)
    progress.state("position 2", 2, 30)
    progress.state("booting a-very-long-name-of-a-topology.yml: create", "create", 30)
    progress.clear()
    assert read(screen) == ("\rposition 2\x1b[K\rbooting a-very-long-name-o...\x1b[K\r\x1b[K")


def test_a_log_file_gets_lines_beside_a_terminal(terminal: tuple[TextIO, int], tmp_path: Path) -> None:
    """A handler that writes to a terminal is passed over, one that writes to a file is not."""
    stream, screen = terminal
    logger = logging.getLogger("remote_lab.client")
    handlers = [logging.StreamHandler(stream), logging.FileHandler(tmp_path / "log")]
    logger.setLevel(logging.INFO)
    for handler in handlers:
        logger.addHandler(handler)
    try:
        Progress(stream).say("lab demo.yml is up")
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
        handlers[1].close()
        logger.setLevel(logging.NOTSET)
    assert (tmp_path / "log").read_text() == "lab demo.yml is up\n"
    assert read(screen) == "\rlab demo.yml is up\x1b[K"


def test_without_a_terminal_there_are_log_lines_only(caplog: pytest.LogCaptureFixture) -> None:
    """At each new subject, and again after the time; not at every look."""
    stream = io.StringIO()
    progress = Progress(stream)
    with caplog.at_level(logging.INFO, "remote_lab.client"):
        progress.state("position 2, about 4 min", 2, 3600)
        progress.state("position 2, about 3 min", 2, 3600)
        progress.state("position 1, about 2 min", 1, 3600)
        progress.state("position 1, about 1 min", 1, 0)
        progress.clear()
    assert [record.message for record in caplog.records] == [
        "position 2, about 4 min",
        "position 1, about 2 min",
        "position 1, about 1 min",
    ]
    assert {record.name for record in caplog.records} == {"remote_lab.client"}
    assert stream.getvalue() == ""


def test_what_others_say_moves_no_cursor(terminal: tuple[TextIO, int]) -> None:
    """A purpose with control characters is shown without them."""
    stream, screen = terminal
    Progress(stream).say("held by \x1b[2Jme\n")
    assert read(screen) == "\rheld by ?[2Jme?\x1b[K"
