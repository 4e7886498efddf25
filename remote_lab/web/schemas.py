"""The shape of the wire, never a query: what comes in, what goes out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, ValidationError, fields, post_load, validates_schema
from marshmallow.validate import Length, OneOf, Regexp
from werkzeug.datastructures import FileStorage

from remote_lab.core.manager import OWNER_REASON

TRUE = frozenset({"true", "1", "yes", "on", "t", "y"})
MAX_WAIT_SECONDS = 60.0
FALSE = frozenset({"false", "0", "no", "off", "f", "n"})
ACQUIRE_HEADER = "X-Acquire-ID"


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


class Seconds(fields.Float):
    """A number of seconds, 0 or more."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(metadata={"minimum": 0}, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> float:
        try:
            seconds = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            seconds = math.nan
        if not 0 <= seconds < math.inf:
            raise ValidationError(f"{value!r} is no number of seconds: use 0 or more")
        return seconds


def printable(text: str) -> None:
    """Raise ValidationError for text that would tear a table or a log line apart."""
    if not text.isprintable():
        raise ValidationError(f"{text!r} has control characters")


class SessionCreated(Schema):
    """A new place in the queue."""

    session_id = fields.String(required=True)
    position = fields.Integer(required=True)
    identity = fields.String(metadata={"description": "Of the lab that came with it, when one did."})


class Holder(Schema):
    """An active session as others see it: whose it is, and what its owner said of it."""

    slot = fields.Integer(required=True)
    token = fields.String(required=True, allow_none=True)
    purpose = fields.String(required=True, allow_none=True)
    ci_job_url = fields.String(required=True, allow_none=True)
    active_since = fields.AwareDateTime(required=True, allow_none=True)


class SessionStatus(Schema):
    """Where a session is; `position` counts everybody in front of it."""

    status = fields.String(required=True, validate=OneOf(["waiting", "active"]))
    position = fields.Integer(required=True)
    slot = fields.Integer(required=True, allow_none=True)
    lease_expires_at = fields.AwareDateTime(required=True, allow_none=True)
    eta_seconds = fields.Float(required=True, allow_none=True)
    held_by = fields.List(fields.Nested(Holder), required=True)
    waiting = fields.Integer(required=True)


class QueuePlace(Schema):
    """A place in the queue as everybody sees it; `token` is the name of the one that it belongs to."""

    position = fields.Integer(required=True)
    status = fields.String(required=True, validate=OneOf(["waiting", "active"]))
    token = fields.String(required=True, allow_none=True)
    purpose = fields.String(required=True, allow_none=True)
    yours = fields.Boolean(required=True)


class ActiveSession(Schema):
    """The head of the queue."""

    session_id = fields.String(required=True)
    status = fields.String(required=True, validate=OneOf(["waiting", "active"]))
    position = fields.Integer(required=True)


class SessionWish(Schema):
    """What somebody may say who enters the queue; all of it is optional."""

    purpose = fields.String(validate=[Length(1, 200), printable])
    ci_job_url = fields.Url(schemes={"http", "https"}, require_tld=False, validate=Length(max=500))
    ci_job_id = fields.String(validate=[Length(1, 200), printable])
    lease_seconds = Seconds()
    identity = fields.String(
        validate=[
            Length(equal=64),
            Regexp("^[0-9a-f]*$", error="64 hexadecimal digits in lower case are expected"),
        ],
        metadata={"description": "Of a lab that came with an earlier session; 404 when it is not kept any more."},
    )


class CiJobQuery(Schema):
    """Whose sessions are to end: the `ci_job_id` or the `ci_job_url` that they were opened with."""

    ci_job = fields.String(
        required=True,
        validate=[Length(1, 500), printable],
        error_messages={
            "required": "Field required: DELETE /session?ci_job=ID ends what a CI job left, "
            "DELETE /session/SESSION_ID a single session"
        },
    )


class JobEnded(Schema):
    """How many sessions of a CI job have ended; 0 when it left none."""

    ended = fields.Integer(required=True)


class EndQuery(Schema):
    """Why a session ends, as a clause that whoever asks for it later is told."""

    reason = fields.String(load_default=OWNER_REASON, validate=[Length(1, 200), printable])


class LeaseExtension(Schema):
    """For how long a session is to go on, from now."""

    lease_seconds = Seconds(required=True)


class WaitQuery(Schema):
    """For how long a request may be held; more than a minute is a minute."""

    wait = Seconds(load_default=0.0)

    @post_load
    def bound(self, query: dict[str, float], **_kwargs: Any) -> dict[str, float]:
        return {"wait": min(query["wait"], MAX_WAIT_SECONDS)}


class FollowQuery(Schema):
    """Whether a boot log is to be followed."""

    follow = Flag(load_default=False)


class Device(Schema):
    """A lab device: `raw` is the node dictionary that `netlab inspect --node NAME` prints."""

    name = fields.String(required=True)
    raw = fields.Dict(keys=fields.String(), required=True)


class Devices(fields.List[Any]):
    """The devices of a lab, which lie in the database in this very shape; described, not made once more."""

    def __init__(self, **options: Any) -> None:
        super().__init__(fields.Nested(Device), **options)

    def _serialize(self, value: Any, *_: Any, **__: Any) -> Any:
        return value


class LabForm(Schema):
    """The multipart form of POST /lab."""

    topology = File(required=True)
    reuse = Flag(load_default=True)
    extra_files = fields.List(File(), load_default=list)


class SessionForm(SessionWish):
    """The multipart form of POST /session: the same, with the lab that the session will want."""

    topology = File()
    extra_files = fields.List(File(), load_default=list)

    @validates_schema
    def check_lab(self, form: dict[str, Any], **_kwargs: Any) -> None:
        if "topology" not in form and form.get("extra_files"):
            raise ValidationError("extra files need the topology that they belong to", "extra_files")
        if "topology" in form and "identity" in form:
            raise ValidationError("send the topology or its identity, not both", "identity")


class AcquireHeader(Schema):
    """What a user calls an acquire, so that asking twice is asking once."""

    acquire_id = fields.String(
        data_key=ACQUIRE_HEADER,
        load_default=None,
        validate=[Length(1, 128), printable],
        metadata={
            "description": "A name of your own, such as a uuid4: the same acquire sent again, because nobody knows "
            "whether it arrived, takes no second reference; a release by that name gives back that one."
        },
    )


class LabAcquired(Schema):
    """An acquired lab; `reused` when it was there before."""

    reused = fields.Boolean(required=True)
    devices = Devices(required=True)


class LabStatus(Schema):
    """The lab of a session, also when it has none."""

    running = fields.Boolean(required=True)
    topology = fields.String(required=True, allow_none=True)
    identity = fields.String(required=True, allow_none=True)
    ref_count = fields.Integer(required=True)
    devices = Devices(required=True)
    netlab_status = fields.String(required=True, allow_none=True)
    state = fields.String(required=True, allow_none=True, validate=OneOf(["starting", "running", "stopping", "failed"]))
    phase = fields.String(required=True, allow_none=True)
    failure = fields.String(required=True, allow_none=True)
    log_tail = fields.String(required=True, allow_none=True)
    eta_seconds = fields.Float(required=True, allow_none=True)
    seconds = fields.Float(required=True, allow_none=True)
    ready = fields.List(fields.String(), required=True)


class CommandOutput(Schema):
    """What a device said to a command; `ok` is false when the command failed there."""

    command = fields.String(required=True)
    output = fields.String(required=True)
    ok = fields.Boolean(required=True)


class DeviceState(Schema):
    """A device, its netlab device type, and what it says of itself: its configuration first."""

    name = fields.String(required=True)
    device = fields.String(required=True, allow_none=True)
    outputs = fields.List(fields.Nested(CommandOutput), required=True)


class LabState(Schema):
    """The state of all devices of a lab."""

    devices = fields.List(fields.Nested(DeviceState), required=True)


class NoQuery(Schema):
    """The query of a call that takes none."""


class DestroyQuery(Schema):
    """The query of DELETE /lab."""

    force = Flag(load_default=True)


class HealthLab(Schema):
    """A lab that is starting, running or stopping."""

    slot = fields.Integer(required=True)
    topology = fields.String(required=True)
    state = fields.String(required=True)


class DebugHealth(Schema):
    """What the server is doing; times in seconds, `timestamp` since the epoch."""

    status = fields.String(required=True)
    problem = fields.String(required=True, allow_none=True)
    timestamp = fields.Float(required=True)
    uptime = fields.Float(required=True)
    sessions = fields.Integer(required=True)
    queue_length = fields.Integer(required=True)
    slots = fields.Integer(required=True)
    labs = fields.List(fields.Nested(HealthLab), required=True)
    reaper_age_seconds = fields.Float(required=True)
    version = fields.String(required=True)
    provider = fields.String(required=True)
