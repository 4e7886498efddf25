"""The log's one format, and what the lines of a request have in common.

    2026-05-27 12:34:56 | INFO | remote-lab-server | sid=24f01c2d topo=demo.yml rid=ci-4711 | Created session

A line about a session or a lab gets them as `extra={"session_id": ..., "topology": ...}`; a request, or a thread that
works for one lab, says `begin()` and `concerns()` once and all its lines have them. Of a session id only the beginning
is shown above DEBUG, wherever it stands in a line: whoever knows a whole one may use it. Tokens are never shown.

No handler and no file is opened here, and nothing is said: that is for whoever calls `logging.config`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from remote_lab.errors import LogConfigInvalid

SHOWN_OF_SESSION_ID = 8
_CONTEXT_MARK = "\0"
"""Where the context comes: a request id may look like a session id and stays whole."""
LINE = "%(asctime)s | %(levelname)s | remote-lab-server | %(context)s%(message)s"

_SESSION_ID = re.compile(r"\b([0-9a-fA-F]{8})-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}\b")
_TOKEN = re.compile(r"(rlab_)[0-9a-fA-F]{8,}")
_UNSAFE_IN_CONTEXT = re.compile(r"[^\w.\-/+@]")

_KEYS: Mapping[str, frozenset[str]] = {
    "formatters": frozenset({"format", "datefmt", "style", "validate", "defaults", "class"}),
    "filters": frozenset({"name"}),
    "loggers": frozenset({"level", "handlers", "filters", "propagate"}),
    "root": frozenset({"level", "handlers", "filters"}),
}
"""The keys that `logging.config` reads and would not miss; a handler's go to its class, which refuses unknown ones."""
_TOP_KEYS = frozenset({"version", "disable_existing_loggers", "handlers", *_KEYS})


@dataclass(frozen=True)
class About:
    """What a line is about; empty for what it is not about."""

    session_id: str = ""
    topology: str = ""
    request_id: str = ""


_NOTHING = About()
_about: ContextVar[About] = ContextVar("remote_lab_log_about", default=_NOTHING)


def begin(request_id: str = "") -> None:
    """From here on the lines of this thread belong to this request, and to no session or lab yet; "": to no request."""
    _about.set(About(request_id=request_id))


def concerns(session_id: str | None = None, topology: str | None = None) -> None:
    """From here on the lines of this thread are about this session, this topology; None leaves what was said before."""
    about = _about.get()
    if session_id is not None:
        about = replace(about, session_id=session_id)
    if topology is not None:
        about = replace(about, topology=topology)
    _about.set(about)


def request_id() -> str:
    """The id of the request that this thread works for; empty when for none."""
    return _about.get().request_id


def about_record(record: logging.LogRecord) -> About:
    """What a record is about: what it says itself, and what its thread has in common with it."""
    common = _about.get()
    session_id = str(getattr(record, "session_id", None) or common.session_id)
    topology = str(getattr(record, "topology", None) or "")
    if not topology and session_id == common.session_id:
        topology = common.topology
    return About(_plain(session_id[:SHOWN_OF_SESSION_ID]), _plain(topology), common.request_id)


def shorten_session_ids(text: str) -> str:
    """Return a text with all but the beginning of every session id left out."""
    return _SESSION_ID.sub(r"\1...", text)


def without_tokens(text: str) -> str:
    """Return a text without the tokens in it: somebody may send one where none belongs, as in a path."""
    return _TOKEN.sub(r"\1...", text)


def _plain(text: str) -> str:
    """Names from uploads and headers: nothing in them may look like another part of a line."""
    return _UNSAFE_IN_CONTEXT.sub("?", text)


class LineFormatter(logging.Formatter):
    """Formats a record as above; a record about nothing has no part for it."""

    def __init__(self) -> None:
        super().__init__(LINE, "%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        about = about_record(record)
        named = (("sid", about.session_id), ("topo", about.topology), ("rid", about.request_id))
        parts = [f"{name}={value}" for name, value in named if value]
        record.context = _CONTEXT_MARK
        text = super().format(record)
        if record.levelno > logging.DEBUG:
            text = shorten_session_ids(text)
        return without_tokens(text.replace(_CONTEXT_MARK, f"{' '.join(parts)} | " if parts else "", 1))


class AboutFilter(logging.Filter):
    """For handlers with a format of their own: adds `session_id`, `topology` and `request_id` to every record.

    Above DEBUG it shortens session ids in the message and the traceback as well.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        about = about_record(record)
        record.session_id = about.session_id
        record.topology = about.topology
        record.request_id = without_tokens(about.request_id)
        record.msg, record.args = without_tokens(record.getMessage()), None
        if record.levelno > logging.DEBUG:
            record.msg, record.args = shorten_session_ids(record.getMessage()), None
            if record.exc_info and not record.exc_text:
                record.exc_text = shorten_session_ids(logging.Formatter().formatException(record.exc_info))
        return True


def logging_config(level: str) -> dict[str, Any]:
    """A `logging.config` dictionary: what this server and gunicorn say from a level on, one line each, on stderr.

    gunicorn says at DEBUG what our own lines say better.
    """
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": LineFormatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {"remote_lab": {"level": level}, "gunicorn.error": {"level": "INFO" if level == "DEBUG" else level}},
    }


def check_logging_config(source: str, settings: object) -> dict[str, Any]:
    """Return settings that are a `logging.config` dictionary in which nothing is unknown or missing.

    `source` names them in errors. `disable_existing_loggers` is false unless they say otherwise, because it silences
    loggers that exist before the file is read. Raises LogConfigInvalid with the key; values are left to
    `logging.config`.
    """
    if not isinstance(settings, dict):
        raise LogConfigInvalid(
            source, f"it is a {type(settings).__name__}, not a mapping that begins with 'version: 1'"
        )
    if settings.get("version") != 1:
        raise LogConfigInvalid(source, f"'version' is {settings.get('version')!r}, expected 1")
    _refuse_unknown(source, "", settings, _TOP_KEYS)
    for section in ("formatters", "filters", "handlers", "loggers"):
        entries = settings.get(section, {})
        if not isinstance(entries, dict):
            raise LogConfigInvalid(source, f"'{section}' is not a mapping of names")
        for name, entry in entries.items():
            _check_entry(source, section, f"{section}.{name}", entry)
    if "root" in settings:
        _check_entry(source, "root", "root", settings["root"])
    if "handlers" not in settings.get("root", {}):
        raise LogConfigInvalid(source, "'root' has no 'handlers', so nothing would be logged")
    return {"disable_existing_loggers": False, **settings}


def _check_entry(source: str, section: str, where: str, entry: object) -> None:
    if not isinstance(entry, dict):
        raise LogConfigInvalid(source, f"'{where}' is not a mapping")
    known = _KEYS.get(section)
    if known is not None and "()" not in entry and "class" not in entry:
        _refuse_unknown(source, f"{where}.", entry, known)


def _refuse_unknown(source: str, where: str, entry: Mapping[Any, Any], known: frozenset[str]) -> None:
    for key in entry:
        if key not in known:
            raise LogConfigInvalid(source, f"'{where}{key}' is not known, expected one of {', '.join(sorted(known))}")
