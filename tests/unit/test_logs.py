"""The log's format, what lines have in common, and the check of other formats."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from remote_lab import logs
from remote_lab.errors import LogConfigInvalid

SESSION_ID = "24f01c2d-8f4e-4a5b-9c3d-1e2f3a4b5c6d"


@pytest.fixture(autouse=True)
def nothing_said_before() -> Iterator[None]:
    """The lines of a test belong to no request, whatever ran on this thread before."""
    logs.begin()
    yield
    logs.begin()


def line(message: str, *arguments: object, level: int = logging.INFO, **extra: object) -> str:
    """What a log line says behind its time."""
    record = logging.getLogger("remote_lab").makeRecord(
        "remote_lab", level, __file__, 1, message, arguments, None, extra=extra
    )
    return logs.LineFormatter().format(record).split(" | ", 1)[1]


def test_a_line_says_what_it_is_about() -> None:
    """With the beginning of the session id."""
    expected = "INFO | remote-lab-server | sid=24f01c2d topo=demo.yml | Created session"
    assert line("Created session", session_id=SESSION_ID, topology="demo.yml") == expected
    assert line("Listening") == "INFO | remote-lab-server | Listening"


def test_lines_of_a_request_share_what_it_is_about() -> None:
    """Until the next one begins."""
    logs.begin("ci-4711")
    assert line("One") == "INFO | remote-lab-server | rid=ci-4711 | One"
    logs.concerns(session_id=SESSION_ID)
    logs.concerns(topology="demo.yml")
    assert line("Two") == "INFO | remote-lab-server | sid=24f01c2d topo=demo.yml rid=ci-4711 | Two"
    logs.begin("ci-4712")
    assert line("Three") == "INFO | remote-lab-server | rid=ci-4712 | Three"


def test_a_line_about_another_session_does_not_get_this_ones_topology() -> None:
    """As when the end of one session promotes the next."""
    logs.begin("ci-4711")
    logs.concerns(session_id=SESSION_ID, topology="demo.yml")
    other = "0a1b2c3d-8f4e-4a5b-9c3d-1e2f3a4b5c6d"
    assert "sid=0a1b2c3d rid=ci-4711 | Active" in line("Active", session_id=other)
    assert "sid=24f01c2d topo=demo.yml rid=ci-4711 | Active" in line("Active", session_id=SESSION_ID)


def test_threads_do_not_share_what_they_are_about() -> None:
    """A request on one thread is not that of another."""
    logs.begin("ci-4711")
    seen: list[str] = []
    thread = threading.Thread(target=lambda: seen.append(line("Elsewhere")))
    thread.start()
    thread.join()
    assert seen == ["INFO | remote-lab-server | Elsewhere"]


def test_session_ids_are_whole_at_debug_only() -> None:
    """Wherever they stand: whoever knows one may use it. A request id stays as it is."""
    assert line("%s ended", SESSION_ID) == "INFO | remote-lab-server | 24f01c2d... ended"
    assert line("%s ended", SESSION_ID, level=logging.DEBUG) == f"DEBUG | remote-lab-server | {SESSION_ID} ended"
    request_id = str(uuid.uuid4())
    logs.begin(request_id)
    assert line("Hello") == f"INFO | remote-lab-server | rid={request_id} | Hello"


def test_a_traceback_has_no_whole_session_ids_either() -> None:
    """Databases put their parameters there."""
    try:
        raise RuntimeError(f"parameters: {SESSION_ID}")
    except RuntimeError as error:
        info: Any = (RuntimeError, error, error.__traceback__)
    record = logging.LogRecord("remote_lab", logging.ERROR, __file__, 1, "Failed", (), info)
    text = logs.LineFormatter().format(record)
    assert "parameters: 24f01c2d..." in text
    assert SESSION_ID not in text


def test_names_from_outside_cannot_look_like_parts_of_a_line() -> None:
    """Neither those of topologies nor what somebody sends as a session id."""
    assert "sid=?a?b topo=x?????y.yml | Hello" in line("Hello", session_id="\na|b", topology="x\n | |y.yml")


def test_the_filter_gives_other_formats_the_same() -> None:
    """For JSON lines and the like."""
    logs.begin("ci-4711")
    logs.concerns(session_id=SESSION_ID)
    record = logging.LogRecord("remote_lab", logging.INFO, __file__, 1, "Hello %s", (SESSION_ID,), None)
    assert logs.AboutFilter().filter(record)
    formatter = logging.Formatter("%(session_id)s/%(topology)s/%(request_id)s %(message)s")
    assert formatter.format(record) == "24f01c2d//ci-4711 Hello 24f01c2d..."


GOOD: dict[str, Any] = {"version": 1, "root": {"handlers": ["h"]}, "handlers": {"h": {"class": "logging.NullHandler"}}}


def test_a_good_configuration_passes_and_keeps_existing_loggers() -> None:
    """Which logging.config would silence unless told not to."""
    assert logs.check_logging_config("x.yml", GOOD) == {"disable_existing_loggers": False, **GOOD}
    assert logs.check_logging_config("x.yml", {**GOOD, "disable_existing_loggers": True})["disable_existing_loggers"]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (None, "it is a NoneType, not a mapping"),
        (["version"], "it is a list, not a mapping"),
        ({}, "'version' is None, expected 1"),
        ({**GOOD, "version": 2}, "'version' is 2, expected 1"),
        ({**GOOD, "logger": {}}, "'logger' is not known, expected one of"),
        ({**GOOD, "loggers": {"remote_lab": {"levle": "INFO"}}}, "'loggers.remote_lab.levle' is not known"),
        ({**GOOD, "formatters": {"f": {"fromat": "x"}}}, "'formatters.f.fromat' is not known"),
        ({**GOOD, "root": {"handler": ["h"]}}, "'root.handler' is not known"),
        ({**GOOD, "handlers": ["h"]}, "'handlers' is not a mapping of names"),
        ({**GOOD, "loggers": {"remote_lab": "INFO"}}, "'loggers.remote_lab' is not a mapping"),
        ({"version": 1}, "'root' has no 'handlers', so nothing would be logged"),
    ],
)
def test_a_broken_configuration_is_refused_with_the_key(settings: object, why: str) -> None:
    """logging.config passes over most of these without a word."""
    with pytest.raises(LogConfigInvalid) as refusal:
        logs.check_logging_config("x.yml", settings)
    assert "The log configuration 'x.yml' cannot be used: " in str(refusal.value)
    assert why in str(refusal.value)
