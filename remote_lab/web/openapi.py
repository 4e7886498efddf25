"""The OpenAPI document: what the schemas and routes say, completed by what they cannot.

One table says which errors an operation has; their statuses come from `remote_lab.web.errors`. Examples are in
`examples.py`. Nothing here answers requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from remote_lab import errors
from remote_lab.errors import transport_code
from remote_lab.web.errors import status_of
from remote_lab.web.examples import FORM, FORMS, REQUESTS, RESPONSES
from remote_lab.web.requests import REQUEST_ID_HEADER, SESSION_HEADER

Document = dict[str, Any]
Kinds = tuple[type[errors.RemoteLabError], ...]

ABOUT = """\
Exclusive, queued access to real network labs on one host.

1. `POST /session` takes a place in the queue; `GET /session/{id}` says when it is your turn.
2. `POST /lab` boots a netlab topology, or shares the lab that already runs it, and answers with its devices.
3. `POST /lab/release` gives one reference back; `DELETE /session/{id}` gives back everything.

Whoever names a session in a call that succeeds proves that its owner is alive. Every error is
`{"detail": ..., "code": ...}`: `detail` for people, `code` for programs; a code is never renamed and never reused. A
trailing slash changes nothing. Booleans of forms and queries are true/1/yes/on/t/y and false/0/no/off/f/n in any case.
"""

_DOOR: Kinds = (errors.TokenRequired, errors.TokenInvalid, errors.TooManyWrongTokens)
"""Of every operation but those in `_EVERYBODYS`, where the server asks for tokens."""
_ANY_SESSION: Kinds = (errors.SessionNotFound,)
_ACTIVE_SESSION: Kinds = (errors.SessionNotFound, errors.SessionWaiting)
_UPLOAD: Kinds = (
    errors.UploadMalformed,
    errors.TopologyNameInvalid,
    errors.TopologyMalformed,
    errors.UploadEmpty,
    errors.UploadNameUnsafe,
    errors.UploadNameClash,
    errors.UploadTooManyFiles,
    errors.UploadTooLarge,
    errors.StorageFull,
    errors.TopologyNotAllowed,
)
_BOOT: Kinds = (errors.LabBusy, errors.LabBootFailed, errors.LabBootCancelled, errors.TooManyHeldRequests)

ERRORS: Mapping[tuple[str, str], Kinds] = {
    ("post", "/session"): (
        *_UPLOAD,
        errors.UploadNotFound,
        errors.RightMissing,
        errors.QueueFull,
        errors.LeaseTooLong,
        errors.LimitExceeded,
    ),
    ("get", "/session/{session_id}"): (*_ANY_SESSION, errors.TooManyHeldRequests),
    ("delete", "/session"): (),
    ("delete", "/session/{session_id}"): _ANY_SESSION,
    ("post", "/session/{session_id}/extend"): (*_ACTIVE_SESSION, errors.LeaseTooLong),
    ("post", "/session/heartbeat"): _ANY_SESSION,
    ("get", "/active-session"): (errors.NoActiveSession,),
    ("get", "/queue"): (),
    ("post", "/lab"): (*_ACTIVE_SESSION, *_UPLOAD, *_BOOT, errors.RightMissing, errors.LimitExceeded),
    ("get", "/lab"): (*_ACTIVE_SESSION, errors.TooManyHeldRequests),
    ("get", "/lab/log"): (*_ACTIVE_SESSION, errors.LabNotFound, errors.TooManyHeldRequests),
    ("get", "/lab/devices"): (*_ACTIVE_SESSION, errors.LabNotFound),
    ("get", "/lab/ssh-key"): (*_ACTIVE_SESSION, errors.LabNotFound, errors.SshKeyNotFound),
    ("get", "/lab/state"): (*_ACTIVE_SESSION, errors.LabNotFound, errors.TooManyHeldRequests),
    ("post", "/lab/release"): (*_ACTIVE_SESSION, errors.LabNotFound),
    ("delete", "/lab"): (*_ACTIVE_SESSION, errors.LabInUse),
    ("get", "/healthz"): (errors.ServerUnhealthy,),
    ("get", "/debug/health"): (errors.ServerUnhealthy,),
}
"""The errors of each operation; what any of them may answer besides is added by `_responses()`."""

OPERATION_IDS: Mapping[tuple[str, str], str] = {("delete", "/session"): "delete_sessions_of_ci_job"}
"""Where method and path make no name of their own: `delete_session` is that of one session."""

_EVERYBODYS = frozenset({("get", "/healthz")})
_WITH_JSON = frozenset({("post", "/session"), ("post", "/session/{session_id}/extend")})
_NEEDS_HEADER = frozenset({("post", "/session/heartbeat")})
_VALIDATED = frozenset(
    {
        ("post", "/session"),
        ("delete", "/session"),
        ("delete", "/session/{session_id}"),
        ("get", "/session/{session_id}"),
        ("post", "/session/{session_id}/extend"),
        ("post", "/session/heartbeat"),
        ("get", "/queue"),
    }
)
HTTP_CODES: Mapping[str, HTTPStatus] = {
    transport_code(status.name): status
    for status in (
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.REQUEST_URI_TOO_LONG,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        HTTPStatus.NOT_IMPLEMENTED,
        HTTPStatus.HTTP_VERSION_NOT_SUPPORTED,
    )
}
"""What HTTP itself refuses, on any path."""
_OF_ANY_REQUEST: Mapping[HTTPStatus, str] = {
    HTTPStatus.BAD_REQUEST: "The request broke off, or is not HTTP.",
    HTTPStatus.REQUEST_URI_TOO_LONG: "Its first line is too long.",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "Its headers are too large.",
}
"""What a request of any operation may meet before anybody looks at it."""
VALIDATION_FAILED = "validation_failed"
INTERNAL_ERROR = "internal_error"

_RETRY_AFTER = {
    "Retry-After": {"description": "Seconds after which asking again makes sense.", "schema": {"type": "integer"}}
}
_ERROR_HEADERS: Mapping[HTTPStatus, Document] = {
    HTTPStatus.SERVICE_UNAVAILABLE: _RETRY_AFTER,
    HTTPStatus.TOO_MANY_REQUESTS: _RETRY_AFTER,
    HTTPStatus.UNAUTHORIZED: {
        "WWW-Authenticate": {"description": "Bearer and Basic (RFC 7235).", "schema": {"type": "string"}}
    },
}
_ASYNC = {
    "Location": {"description": "Where to ask how far it is: /lab.", "schema": {"type": "string"}},
    "Preference-Applied": {"description": "respond-async (RFC 7240).", "schema": {"type": "string"}},
}
_NO_STORE = {"Cache-Control": {"description": "no-store: a key is kept nowhere.", "schema": {"type": "string"}}}
HEADERS: Mapping[tuple[str, str, str], Document] = {
    ("get", "/lab/ssh-key", "200"): _NO_STORE,
    ("get", "/session/{session_id}", "200"): _RETRY_AFTER,
    ("get", "/lab", "200"): _RETRY_AFTER,
    ("post", "/lab", "202"): _ASYNC,
}

PARAMETERS: Mapping[tuple[str, str], list[Document]] = {
    ("post", "/lab"): [
        {
            "in": "header",
            "name": "Prefer",
            "required": False,
            "description": "`respond-async`: answer 202 at once instead of holding the call until the lab is up; "
            "with `wait=SECONDS` only after so long, ten at most.",
            "schema": {"type": "string", "examples": ["respond-async", "respond-async, wait=1"]},
        }
    ],
    ("get", "/lab/log"): [
        {
            "in": "header",
            "name": "Last-Event-ID",
            "required": False,
            "description": "With `follow`: go on behind this event, as browsers do when they reconnect. What is no "
            "number of an event counts as none.",
            "schema": {"type": "string"},
        }
    ],
}

TAGS = (
    {"name": "sessions", "description": "Places in the queue: first come, first served."},
    {"name": "lab", "description": "The lab of an active session, which the header X-Session-ID names."},
    {"name": "health", "description": "The server itself."},
)


def complete(document: Document) -> Document:
    """Return the document of flask-smorest with errors, headers, security and examples."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method != "parameters":
                _complete_operation(method, path, operation)
    schemas = {name: _open(schema) for name, schema in document["components"]["schemas"].items()}
    schemas = {name: schema for name, schema in schemas.items() if name != "PaginationMetadata"}
    document["components"] = {
        "schemas": {**schemas, "ValidationItem": _validation_item(), "Error": _error()},
        "headers": {
            REQUEST_ID_HEADER: {
                "description": "The id of this request, also in the server's log: the caller's own if it sent one of 1 "
                "to 128 letters, digits, dots, dashes and underscores.",
                "schema": {"type": "string"},
            }
        },
        "securitySchemes": {
            "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "A token of `remote-lab token create`, where the server asks for one.",
            },
            "token_as_password": {
                "type": "http",
                "scheme": "basic",
                "description": "The same as a password; the user may be anything.",
            },
            "session": {
                "type": "apiKey",
                "in": "header",
                "name": SESSION_HEADER,
                "description": "The `session_id` of `POST /session`.",
            },
        },
    }
    document["info"]["description"] = ABOUT
    document["info"]["license"] = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
    document["tags"] = list(TAGS)
    return document


def codes() -> list[str]:
    """Every code an answer may have."""
    own = (kind.code for kind in _kinds(errors.RemoteLabError) if "code" in vars(kind) and status_of(kind) is not None)
    return sorted({*own, *HTTP_CODES, VALIDATION_FAILED, INTERNAL_ERROR})


def _kinds(base: type[errors.RemoteLabError]) -> Iterator[type[errors.RemoteLabError]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _kinds(kind)


def _complete_operation(method: str, path: str, operation: Document) -> None:
    key = (method, path)
    summary, _, rest = operation.pop("summary").partition("; ")
    operation["summary"] = summary.rstrip(".")
    if rest:
        operation["description"] = rest[:1].upper() + rest[1:]
    operation["operationId"] = _operation_id(method, path)
    operation["security"] = _security(key)
    if parameters := PARAMETERS.get(key):
        operation["parameters"] = [*operation.get("parameters", ()), *parameters]
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        content["examples"] = FORMS.get(key, REQUESTS[key]) if kind == FORM else REQUESTS[key]
    operation["responses"] = _responses(key, operation["responses"])


def _security(key: tuple[str, str]) -> list[Document]:
    """A server that runs open asks for no token, so each of these is a choice."""
    session: Document = {"session": []} if key[1].startswith("/lab") or key in _NEEDS_HEADER else {}
    if key in _EVERYBODYS:
        return []
    return [{"token": [], **session}, {"token_as_password": [], **session}, session]


def _operation_id(method: str, path: str) -> str:
    if (method, path) in OPERATION_IDS:
        return OPERATION_IDS[method, path]
    words = [word for word in path.replace("-", "_").strip("/").split("/") if not word.startswith("{")]
    return "_".join([method, *words])


def _responses(key: tuple[str, str], described: Document) -> Document:
    responses = {status: answer for status, answer in described.items() if status.startswith("2")}
    for status, answer in responses.items():
        answer["headers"] = {**_request_id(), **HEADERS.get((*key, status), {})}
        for content in answer.get("content", {}).values():
            content["examples"] = RESPONSES[(*key, status)]
    if key == ("get", "/lab/log"):
        # Tools disagree on what the schema of a stream is about, its text or each of its events.
        schemas: Document = {"text/plain": {"type": "string"}, "text/event-stream": {}}
        responses["200"]["content"] = {
            media_type: {"schema": schema, "examples": RESPONSES[(*key, media_type)]}
            for media_type, schema in schemas.items()
        }
    return responses | dict(_error_responses(key))


def _error_responses(key: tuple[str, str]) -> Iterator[tuple[str, Document]]:
    by_status: dict[HTTPStatus, list[tuple[str, str]]] = {}
    for kind in (*ERRORS[key], *(() if key in _EVERYBODYS else _DOOR)):
        status = status_of(kind)
        if status is None:
            raise ValueError(f"{kind.__name__} has no status, so {key} cannot have it")
        by_status.setdefault(status, []).append((kind.code, str(kind.__doc__).splitlines()[0]))
    if key in _VALIDATED or key[1].startswith("/lab"):
        item = (VALIDATION_FAILED, "A part of the request is missing or not what it should be.")
        by_status.setdefault(HTTPStatus.UNPROCESSABLE_ENTITY, []).insert(0, item)
    for status, meaning in _OF_ANY_REQUEST.items():
        by_status.setdefault(status, []).append((transport_code(status.name), meaning))
    if key in _WITH_JSON:
        too_large = (transport_code(HTTPStatus.REQUEST_ENTITY_TOO_LARGE.name), "The body is larger than 64 KiB.")
        by_status.setdefault(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, []).append(too_large)
    if key == ("post", "/lab") or key in _WITH_JSON:
        by_status[HTTPStatus.REQUEST_TIMEOUT] = [("request_timeout", "The request came too slowly.")]
    unavailable = (errors.DatabaseUnavailable.code, str(errors.DatabaseUnavailable.__doc__).splitlines()[0])
    by_status.setdefault(HTTPStatus.SERVICE_UNAVAILABLE, []).append(unavailable)
    by_status.setdefault(HTTPStatus.INTERNAL_SERVER_ERROR, []).append((INTERNAL_ERROR, "A defect of the server."))
    for status, found in sorted(by_status.items()):
        yield str(status.value), _error_response(status, found)


def _error_response(status: HTTPStatus, found: Iterable[tuple[str, str]]) -> Document:
    found = list(found)
    return {
        "description": "\n".join(f"- `{code}`: {meaning}" for code, meaning in found),
        "headers": {**_request_id(), **_ERROR_HEADERS.get(status, {})},
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/Error"},
                "examples": {code: {"value": _error_example(code, meaning)} for code, meaning in found},
            }
        },
    }


def _error_example(code: str, meaning: str) -> Document:
    if code == VALIDATION_FAILED:
        item = {"loc": ["header", SESSION_HEADER], "msg": "Field required", "type": "missing"}
        return {"detail": [item], "code": code}
    if code == errors.LabBootFailed.code:
        more = {"phase": "create", "log_tail": "[TYPE] Unknown device type 'csr'\\nFatal error in netlab"}
        return {"detail": "The lab did not boot (create): netlab ended with status 1.", "code": code, **more}
    if code == errors.TopologyNotAllowed.code:
        finding: dict[str, int | str] = {"line": 3, "column": 1, "what": "plugin is not allowed: plugins are programs"}
        return {"detail": errors.TopologyNotAllowed("lab.yml", [finding]).detail, "code": code, "findings": [finding]}
    return {"detail": meaning, "code": code}


def _request_id() -> Document:
    return {REQUEST_ID_HEADER: {"$ref": f"#/components/headers/{REQUEST_ID_HEADER}"}}


def _open(schema: Document) -> Document:
    """What answers may grow by; requests with unknown words are refused."""
    if schema.get("additionalProperties") is False and not set(schema["properties"]) & {"topology", "lease_seconds"}:
        return {key: value for key, value in schema.items() if key != "additionalProperties"}
    return schema


def _validation_item() -> Document:
    return {
        "type": "object",
        "required": ["loc", "msg", "type"],
        "properties": {
            "loc": {
                "type": "array",
                "items": {"type": ["string", "integer"]},
                "description": "body, query or header, and the name there.",
            },
            "msg": {"type": "string"},
            "type": {"type": "string", "enum": ["missing", "value_error"]},
        },
    }


def _error() -> Document:
    return {
        "type": "object",
        "description": "Every error.",
        "required": ["detail", "code"],
        "properties": {
            "detail": {
                "description": "A sentence that says what is wrong and what to do; for 422 a list.",
                "oneOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"$ref": "#/components/schemas/ValidationItem"}},
                ],
            },
            "code": {"type": "string", "enum": codes(), "description": "Stable: never renamed, never reused."},
            "phase": {"type": "string", "description": "Of `lab_boot_failed`: the step that failed."},
            "log_tail": {"type": "string", "description": "Of `lab_boot_failed`: the last lines of the boot log."},
            "findings": {
                "type": "array",
                "description": "Of `topology_not_allowed`: what may not be in it, and where; lines and columns from 1.",
                "items": {
                    "type": "object",
                    "required": ["line", "column", "what"],
                    "properties": {
                        "line": {"type": "integer"},
                        "column": {"type": "integer"},
                        "what": {"type": "string"},
                    },
                },
            },
            "reason": {"type": ["string", "null"], "description": "Of `session_not_found`: why the session ended."},
            "ended_at": {"type": "string", "format": "date-time", "description": "Of `session_not_found`: when."},
        },
    }
