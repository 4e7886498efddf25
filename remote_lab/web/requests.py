"""Every request has an id, a line in the log, and a body that is read strictly. What is asked is not known here."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import flask
from flask import Flask
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from remote_lab import logs

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)

REQUEST_ID_HEADER = "X-Request-ID"
SESSION_HEADER = "X-Session-ID"
SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
MAX_DETAIL = 300
"""Characters of an error's detail in the log."""

ASKED_AGAIN = frozenset({"session_waiting", "lab_busy", "no_active_session"})
"""The codes of refusals that clients get while they wait; nobody wants to read each."""
LOGGED_ELSEWHERE = frozenset({"internal_error", "token_invalid", "too_many_wrong_tokens"})
TRY_LATER = frozenset({"server_busy", "queue_full"})
LOGGED_BY_JOB = frozenset({"lab_boot_failed", "lab_boot_cancelled"})

STARTED = "remote_lab.started"
"""In the environment of a request that was read before it came here: when, on the monotonic clock."""
_REFUSAL = "remote_lab.refusal"


class Request(flask.Request):
    """A request whose body is an error when it cannot be read or is too large, instead of empty or cut off."""

    form_data_parser_class = partial(FormDataParser, silent=False)  # type: ignore[assignment]  # called, that is all

    def get_data(self, *arguments: Any, **named: Any) -> Any:
        data = super().get_data(*arguments, **named)
        # werkzeug 3 cuts a body off here that did not say how long it is.
        if self.content_length is None and self.max_content_length and len(data) >= self.max_content_length:
            raise RequestEntityTooLarge
        return data


def register(app: Flask) -> None:
    """Give every request of the application its id and its line."""
    app.request_class = Request
    app.wsgi_app = RequestLog(app.wsgi_app)  # type: ignore[method-assign]  # as Flask's documentation wants it
    app.before_request(_name_session)


def note_refusal(code: str, detail: Any) -> None:
    """Remember why the request at hand is refused, for its line in the log."""
    flask.request.environ[_REFUSAL] = (code, detail)


def _name_session() -> None:
    session_id = flask.request.headers.get(SESSION_HEADER) or (flask.request.view_args or {}).get("session_id")
    if session_id:
        logs.concerns(session_id=session_id)


class RequestLog:
    """WSGI: answers with X-Request-ID, logs each request once, and lets the lines of a request begin and end with it.

    The caller's id is taken when it is sane, otherwise a new one is made.
    """

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request_id = id_of(environ)
        environ.setdefault(STARTED, time.monotonic())
        logs.begin(request_id)

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Callable[[bytes], object]:
            log_answer(environ, int(status.split(" ", 1)[0]))
            return start_response(status, [*headers, (REQUEST_ID_HEADER, request_id)], *rest)

        try:
            answer = self._application(environ, start)
        except BaseException:
            logs.begin()
            raise
        return _Answer(answer)


class _Answer:
    """The body of an answer; when it is closed, the lines of its request have ended."""

    def __init__(self, body: Iterable[bytes]) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        try:
            if hasattr(self._body, "close"):
                self._body.close()
        finally:
            logs.begin()


def id_of(environ: WSGIEnvironment) -> str:
    """The id of a request: the caller's when it is sane, otherwise a new one."""
    wanted = environ.get("HTTP_X_REQUEST_ID", "")
    return wanted if SANE_REQUEST_ID.fullmatch(wanted) else uuid.uuid4().hex[:16]


def is_logged(status: int) -> bool:
    """Whether the log wants a line about a request that was answered so, and not refused."""
    return log.isEnabledFor(_level(status, ""))


def log_answer(environ: WSGIEnvironment, status: int) -> None:
    """Write the line of a request."""
    code, detail = environ.get(_REFUSAL, ("", ""))
    level = _level(status, code)
    if log.isEnabledFor(level):
        seconds = time.monotonic() - environ[STARTED]
        why = f" {code}: {_shown(detail)}" if code else ""
        log.log(
            level, "%s %s: %d in %.0f ms%s", environ["REQUEST_METHOD"], _target(environ), status, seconds * 1000, why
        )


def _level(status: int, code: str) -> int:
    if status < HTTPStatus.BAD_REQUEST or code in ASKED_AGAIN or code in LOGGED_ELSEWHERE:
        return logging.DEBUG
    if status < HTTPStatus.INTERNAL_SERVER_ERROR or code in LOGGED_BY_JOB:
        return logging.INFO
    return logging.WARNING if code in TRY_LATER else logging.ERROR


def _target(environ: WSGIEnvironment) -> str:
    """Path and query, with nothing in them that is more than a part of the line."""
    path = quote(environ.get("PATH_INFO", "").encode("latin-1"), safe="/:@-._~")
    query = quote(environ.get("QUERY_STRING", "").encode("latin-1"), safe="=&%:@/-._~+")
    return f"{path}?{query}" if query else path


def _shown(detail: Any) -> str:
    text = detail if isinstance(detail, str) else json.dumps(detail, ensure_ascii=False)
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= MAX_DETAIL else f"{text[:MAX_DETAIL]}..."
