"""The two calls that clients repeat while they wait, answered from memory by whoever reads their heads.

Only what is ordinary: a status or a heartbeat of a live session, asked by somebody who may know it. Everything else is
left to the routes, errors above all, so that each refusal stands in one place. What is answered here is answered as the
routes do it, byte for byte, and nothing here waits for a disk, a lock of a writer or a client.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from flask import Flask
from marshmallow import Schema, fields

from remote_lab import logs
from remote_lab.callers import OPEN, Caller
from remote_lab.core.board import Place
from remote_lab.core.manager import LabManager
from remote_lab.core.waiting import NO_ROOM_SECONDS
from remote_lab.web import requests
from remote_lab.web.auth import token_of
from remote_lab.web.gate import retry_after
from remote_lab.web.schemas import MAX_WAIT_SECONDS, SessionStatus

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

log = logging.getLogger(__name__)

HEARTBEAT = "/session/heartbeat"
_STATUS = re.compile(r"/session/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
_WAIT = re.compile(r"wait=([0-9]{1,9}(?:\.[0-9]{1,9})?)")
_SESSION_HEADER = "HTTP_" + requests.SESSION_HEADER.upper().replace("-", "_")
_JSON = ("Content-Type", "application/json")
_encode = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True)
class Told:
    """An answer: its status with its phrase, its headers in their order, its body."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes = b""


@dataclass(frozen=True)
class Hold:
    """The answer is to wait for so many seconds, or until somebody wakes it.

    `begin` takes what wakes it, which may be called on any thread, and returns what ends the hold, to be called once.
    """

    seconds: float
    begin: Callable[[Callable[[], None]], Callable[[], None]]


class FastAnswers:
    """The answers of one application; safe to use from many threads."""

    def __init__(self, app: Flask) -> None:
        self._manager: LabManager = app.extensions["remote_lab"]

    def answer(self, environ: WSGIEnvironment, may_hold: bool = True, was_held: bool = False) -> Told | Hold | None:
        """Answer a request without a body; None for what is not ordinary, of which nothing has been done.

        `environ` needs the method, the path, the query and the headers of a request. The one that was held is asked
        again with `was_held`. Where there is no room to hold it, `may_hold` is false.
        """
        environ.setdefault(requests.STARTED, time.monotonic())
        try:
            return self._answer(environ, may_hold, was_held)
        except Exception as error:  # noqa: BLE001 - the routes meet the same, and say it
            log.debug("Left to the routes: %s", error)
            return None

    def _answer(self, environ: WSGIEnvironment, may_hold: bool, was_held: bool) -> Told | Hold | None:
        asked, manager = _asked(environ), self._manager
        caller = None if asked is None else self._caller(environ.get("HTTP_AUTHORIZATION", ""))
        if asked is None or caller is None:
            return None
        session_id, seconds = asked
        # One look for all that is decided: between two of them it may become the session's turn.
        sight = manager.sight_at_once(session_id, caller)
        if sight is None:
            return None
        if seconds is None:
            return self._told(environ, session_id, "204 NO CONTENT", [_JSON])
        place = sight.entry.state, sight.position
        is_to_be_held = seconds > 0 and not was_held and manager.may_be_held(*place)
        if is_to_be_held and may_hold:
            return Hold(seconds, partial(self._begin, session_id, place))
        view = manager.view_at_once(sight, caller, was_held)
        if view is None:
            return None
        if is_to_be_held:
            view = replace(view, retry_after_seconds=NO_ROOM_SECONDS)
        elif not was_held:
            view = manager.to_poll(view)
        body = (_encode(_dump(view)) + "\n").encode("ascii")
        headers = [_JSON, ("Content-Length", str(len(body))), *retry_after(view.retry_after_seconds).items()]
        return self._told(environ, session_id, "200 OK", headers, body)

    def _caller(self, authorization: str) -> Caller | None:
        access = self._manager.access
        if not access.entry.by_token:
            return OPEN
        token = token_of(authorization)
        return access.known(token) if token else None

    def _told(
        self,
        environ: WSGIEnvironment,
        session_id: str,
        status: str,
        headers: list[tuple[str, str]],
        body: bytes = b"",
    ) -> Told:
        self._manager.touch(session_id)
        request_id = requests.id_of(environ)
        if requests.is_logged(int(status[:3])):
            logs.begin(request_id)
            logs.concerns(session_id=session_id)
            requests.log_answer(environ, int(status[:3]))
            logs.begin()
        return Told(status, [*headers, (requests.REQUEST_ID_HEADER, request_id)], body)

    def _begin(self, session_id: str, seen: Place, wake: Callable[[], None]) -> Callable[[], None]:
        """Whoever is held is alive, until the end of the hold."""
        held = ExitStack()
        held.callback(self._manager.touch, session_id)
        held.enter_context(self._manager.sessions_seen.present(session_id))
        watch = self._manager.board.watch(session_id, seen, wake)
        held.callback(watch.cancel)
        return held.close


def _asked(environ: WSGIEnvironment) -> tuple[str, float | None] | None:
    """Of which session the status is asked, and for how many seconds that may be held; None of a heartbeat."""
    method, path, query = environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"]
    if method == "POST":
        return (environ.get(_SESSION_HEADER, ""), None) if path == HEARTBEAT and not query else None
    found, wait = _STATUS.fullmatch(path), _WAIT.fullmatch(query)
    if method != "GET" or found is None or (query and wait is None):
        return None
    return found[1], 0.0 if wait is None else min(float(wait[1]), MAX_WAIT_SECONDS)


def _serialiser(schema: Schema) -> Callable[[Any], Mapping[str, Any]]:
    """What `schema.dump` returns, in a tenth of its time: which kind of field each is, is asked once."""
    parts = [(field.data_key or name, name, _converter(name, field)) for name, field in schema.dump_fields.items()]

    def dump(value: Any) -> Mapping[str, Any]:
        found = ((key, getattr(value, name), convert) for key, name, convert in parts)
        return {key: one if one is None or convert is None else convert(one) for key, one, convert in found}

    return dump


def _converter(name: str, field: fields.Field[Any]) -> Callable[[Any], Any] | None:
    """None where the value is what JSON shows."""
    if type(field) in (fields.String, fields.Integer):
        return None
    if type(field) is fields.Float:
        return float
    if type(field) is fields.AwareDateTime and field.format is None:
        return lambda value: value.isoformat()
    if type(field) is fields.List and type(field.inner) is fields.Nested:
        inner = _serialiser(field.inner.schema)
        return lambda values: [inner(value) for value in values]
    return lambda value: field.serialize(name, {name: value})


_dump = _serialiser(SessionStatus())
