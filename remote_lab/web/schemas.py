"""The shape of the wire, never a query: what comes in, what goes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, ValidationError, fields
from werkzeug.datastructures import FileStorage

TRUE = frozenset({"true", "1", "yes", "on", "t", "y"})
FALSE = frozenset({"false", "0", "no", "off", "f", "n"})


class Flag(fields.Boolean):
    """A boolean of a form or query: the usual words in any case."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> bool:
        word = str(value).strip().lower()
        if word in TRUE or word in FALSE:
            return word in TRUE
        raise ValidationError(f"{value!r} is not a boolean: use true or false")


class File(fields.Field[FileStorage]):
    """A part of a multipart form that has a file name."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(metadata={"type": "string", "format": "binary"}, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> FileStorage:
        if not isinstance(value, FileStorage):
            raise ValidationError("expected a file, with a file name")
        return value


class SessionCreated(Schema):
    """A new place in the queue."""

    session_id = fields.String(required=True)
    position = fields.Integer(required=True)


class SessionStatus(Schema):
    """Where a session is; `position` counts everybody in front of it."""

    status = fields.String(required=True)
    position = fields.Integer(required=True)


class ActiveSession(SessionStatus):
    """The head of the queue."""

    session_id = fields.String(required=True)


class Device(Schema):
    """A lab device: `raw` is the node dictionary that `netlab inspect --node NAME` prints."""

    name = fields.String(required=True)
    raw = fields.Dict(keys=fields.String(), required=True)


class LabForm(Schema):
    """The multipart form of POST /lab."""

    topology = File(required=True)
    reuse = Flag(load_default=True)
    extra_files = fields.List(File(), load_default=list)


class LabAcquired(Schema):
    """An acquired lab; `reused` when it was there before."""

    reused = fields.Boolean(required=True)
    devices = fields.List(fields.Nested(Device), required=True)


class LabStatus(Schema):
    """The lab of a session, also when it has none."""

    running = fields.Boolean(required=True)
    topology = fields.String(required=True, allow_none=True)
    ref_count = fields.Integer(required=True)
    devices = fields.List(fields.Nested(Device), required=True)
    netlab_status = fields.String(required=True, allow_none=True)


class DestroyQuery(Schema):
    """The query of DELETE /lab."""

    force = Flag(load_default=True)


class DebugHealth(Schema):
    """What the server is doing; times in seconds, `timestamp` since the epoch."""

    status = fields.String(required=True)
    timestamp = fields.Float(required=True)
    uptime = fields.Float(required=True)
    sessions = fields.Integer(required=True)
    queue_length = fields.Integer(required=True)
