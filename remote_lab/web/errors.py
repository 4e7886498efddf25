"""The one table from domain error to HTTP status, and the one shape of an error: `{"detail": ..., "code": ...}`."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import ClientDisconnected, HTTPException, RequestEntityTooLarge

from remote_lab import errors
from remote_lab.web.requests import SESSION_HEADER, note_refusal

log = logging.getLogger(__name__)

STATUS: Mapping[type[errors.RemoteLabError], HTTPStatus] = {
    errors.SessionNotFound: HTTPStatus.NOT_FOUND,
    errors.SessionWaiting: HTTPStatus.LOCKED,
    errors.NoActiveSession: HTTPStatus.NOT_FOUND,
    errors.LeaseTooLong: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.QueueFull: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.LabNotFound: HTTPStatus.NOT_FOUND,
    errors.SshKeyNotFound: HTTPStatus.NOT_FOUND,
    errors.LabBusy: HTTPStatus.LOCKED,
    errors.LabInUse: HTTPStatus.CONFLICT,
    errors.LabBootFailed: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.LabBootCancelled: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.TooManyHeldRequests: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.TokenRequired: HTTPStatus.UNAUTHORIZED,
    errors.TokenInvalid: HTTPStatus.UNAUTHORIZED,
    errors.TooManyWrongTokens: HTTPStatus.TOO_MANY_REQUESTS,
    errors.RightMissing: HTTPStatus.FORBIDDEN,
    errors.LimitExceeded: HTTPStatus.TOO_MANY_REQUESTS,
    errors.ServerUnhealthy: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.UploadTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.UploadTooManyFiles: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.TopologyNotAllowed: HTTPStatus.FORBIDDEN,
    errors.UploadNotFound: HTTPStatus.NOT_FOUND,
    errors.UploadError: HTTPStatus.BAD_REQUEST,
}
"""The status of an error is that of its nearest class here; one without any is a defect and answers 500."""

CHALLENGE = 'Bearer realm="remote-lab", Basic realm="remote-lab", charset="UTF-8"'
"""How a caller without a token may give one (RFC 7235, 4.1)."""

_EXHAUSTED = {
    errno.EMFILE: "open files",
    errno.ENFILE: "open files",
    errno.EAGAIN: "processes",
    errno.ENOMEM: "memory",
}

PLACES = {"files": "body", "form": "body", "json": "body", "query": "query", "headers": "header"}


class SessionHeaderMissing(Exception):
    """A call that needs a session came without its header."""


def register(app: Flask) -> None:
    """Answer every error of the application in the one shape."""
    app.register_error_handler(errors.RemoteLabError, _refused)
    app.register_error_handler(SessionHeaderMissing, _header_missing)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _defect)


def status_of(kind: type[errors.RemoteLabError]) -> HTTPStatus | None:
    """The status of an error, None for one that never reaches the wire."""
    return next((STATUS[base] for base in kind.__mro__ if base in STATUS), None)


def _answer(status: int, code: str, detail: Any, **more: Any) -> Response:
    note_refusal(code, detail)
    response = jsonify({"detail": detail, "code": code, **more})
    response.status_code = status
    return response


def _refused(error: errors.RemoteLabError) -> Response:
    status = status_of(type(error))
    if status is None:
        return _defect(error)
    if isinstance(error, errors.LeaseTooLong):
        return _answer(status, error.code, [_item(("body", "lease_seconds"), error.detail, "value_error")])
    if isinstance(error, errors.LabBootFailed):
        return _answer(status, error.code, error.detail, phase=error.phase, log_tail=error.log_tail)
    if isinstance(error, errors.TopologyNotAllowed):
        return _answer(status, error.code, error.detail, findings=error.findings)
    if isinstance(error, errors.SessionNotFound) and error.ended_at is not None:
        return _answer(status, error.code, error.detail, ended_at=error.ended_at.isoformat(), reason=error.reason)
    response = _answer(status, error.code, error.detail)
    if status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = CHALLENGE
    if isinstance(error, errors.TooManyWrongTokens | errors.LimitExceeded):
        response.headers["Retry-After"] = str(error.retry_after_seconds)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = "5"
    if error.__cause__ is not None:
        note_refusal(error.code, f"{error.detail} {error.__cause__}")
    return response


def _header_missing(_error: SessionHeaderMissing) -> Response:
    return _answer(HTTPStatus.UNPROCESSABLE_ENTITY, "validation_failed", [_missing_header_item()])


def _missing_header_item() -> dict[str, Any]:
    return _item(("header", SESSION_HEADER), "Field required", "missing")


def _item(loc: Iterable[str | int], msg: str, kind: str) -> dict[str, Any]:
    return {"loc": list(loc), "msg": msg, "type": kind}


def _http_error(error: HTTPException) -> Response:
    if isinstance(error, RequestEntityTooLarge) and request.blueprint != "lab":
        too_large, most = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, request.max_content_length
        return _answer(too_large, errors.transport_code(too_large.name), f"The body is larger than {most} bytes.")
    if isinstance(error, RequestEntityTooLarge):
        limits = f"{request.max_content_length} bytes, or has more than {request.max_form_parts} parts"
        detail = f"The upload is larger than {limits}."
        return _answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, errors.UploadTooLarge.code, detail)
    if isinstance(error, ClientDisconnected):
        return _incomplete(error)
    status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    messages = getattr(error, "data", {}).get("messages")
    if messages is not None:
        header = [_missing_header_item()] if g.get("session_header_missing") else []
        return _answer(HTTPStatus.UNPROCESSABLE_ENTITY, "validation_failed", header + list(_items(messages)))
    code = errors.transport_code(HTTPStatus(status).name)
    response = _answer(status, code, f"{request.method} {request.path}: {error.description}")
    for name, value in error.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            response.headers[name] = value
    return response


def _incomplete(error: ClientDisconnected) -> Response:
    """The body of the request ended before its end, or did not come in time."""
    status = HTTPStatus.REQUEST_TIMEOUT if isinstance(error.__context__, TimeoutError) else HTTPStatus.BAD_REQUEST
    why = f": {error.__context__}" if status == HTTPStatus.REQUEST_TIMEOUT else ""
    response = _answer(
        status, errors.transport_code(status.name), f"The request did not arrive in full{why}. Send it again."
    )
    response.headers["Connection"] = "close"
    return response


def _items(messages: Any, loc: tuple[str | int, ...] = ()) -> Iterator[dict[str, Any]]:
    """Flatten webargs' nested messages, `{location: {field: [message]}}`, into a list of items."""
    if isinstance(messages, Mapping):
        for key, inner in messages.items():
            yield from _items(inner, (*loc, key if loc else PLACES.get(str(key), str(key))))
        return
    for message in messages if isinstance(messages, list) else [messages]:
        text = "Field required" if str(message).startswith("Missing data") else str(message)
        yield _item(loc, text, "missing" if text.startswith("Field required") else "value_error")


def _exhausted(error: Exception) -> str | None:
    """What the host has run out of, when the error says that; it is nobody's defect, and passes."""
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return "threads"
    return _EXHAUSTED.get(error.errno or 0) if isinstance(error, OSError) else None


def _defect(error: Exception) -> Response:
    if (what := _exhausted(error)) is not None:
        log.error("%s %s failed: the host is out of %s", request.method, request.path, what, exc_info=error)
        return _refused(errors.ServerUnhealthy(f"The host is out of {what}. Try again in a few seconds."))
    log.error("%s %s failed", request.method, request.path, exc_info=error)
    detail = "The server could not answer this request. Its log has the reason; please tell its operator the time."
    return _answer(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", detail)
