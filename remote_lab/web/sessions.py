"""The queue over HTTP."""

from __future__ import annotations

from typing import Any

from flask import request

from remote_lab import logs
from remote_lab.callers import USE
from remote_lab.core import views
from remote_lab.core.sessions import Wish
from remote_lab.core.uploads import Brought
from remote_lab.core.views import SessionView
from remote_lab.web.auth import caller, require
from remote_lab.web.gate import Answer, manager, named_session, refresh, retry_after
from remote_lab.web.parsing import StrictBlueprint
from remote_lab.web.schemas import (
    ActiveSession,
    CiJobQuery,
    EndQuery,
    JobEnded,
    LeaseExtension,
    NoQuery,
    QueuePlace,
    SessionCreated,
    SessionForm,
    SessionStatus,
    SessionWish,
    WaitQuery,
)
from remote_lab.web.uploads import admit_upload, uploaded

blueprint = StrictBlueprint("sessions", __name__, description="Places in the queue")
blueprint.before_request(lambda: admit_upload() if _brings_files() else None)
blueprint.after_request(refresh)


@blueprint.post("/session")
@blueprint.doc(requestBody={"content": {"multipart/form-data": {"schema": SessionForm}}})
@blueprint.arguments(SessionWish, required=False)
@blueprint.response(201, SessionCreated)
def open_session(wish: dict[str, Any]) -> dict[str, Any]:
    """Take the next place in the queue; with a lab, which is then booted while the session waits, where there is room.

    As multipart/form-data the body has the same fields, and `topology` and `extra_files` as POST /lab has them.
    """
    require(USE)
    form: dict[str, Any] = {}
    if _brings_files():
        form = StrictBlueprint.ARGUMENTS_PARSER.parse(SessionForm, location="files")
        wish = {name: value for name, value in form.items() if name not in ("topology", "extra_files")}
    identity = wish.pop("identity", None)
    if "topology" in form:
        return _open_with(Wish(**wish), form)
    if identity is not None:
        manager().brought.check_named(identity, caller())
    return _opened(manager().open_session(Wish(**wish), caller(), Brought(identity=identity)), identity)


def _open_with(wish: Wish, form: dict[str, Any]) -> dict[str, Any]:
    logs.concerns(topology=form["topology"].filename)
    brought = manager().brought
    upload = brought.receive(*uploaded(form["topology"], form["extra_files"]), caller())
    try:
        return _opened(manager().open_session(wish, caller(), Brought(upload)), upload.identity)
    finally:
        brought.done(upload)


def _opened(view: SessionView, identity: str | None) -> dict[str, Any]:
    logs.concerns(session_id=view.session_id)
    answer = {"session_id": view.session_id, "position": view.position}
    return answer if identity is None else {**answer, "identity": identity}


def _brings_files() -> bool:
    return request.endpoint == f"{blueprint.name}.open_session" and request.mimetype == "multipart/form-data"


@blueprint.post("/session/heartbeat")
@blueprint.response(204)
def heartbeat() -> None:
    """Say that the session in X-Session-ID is alive."""
    manager().heartbeat(named_session())


@blueprint.get("/session/<session_id>")
@blueprint.arguments(WaitQuery, location="query")
@blueprint.response(200, SessionStatus)
def session(query: dict[str, float], session_id: str) -> Answer[SessionView]:
    """Where a session is in the queue; with `wait`, held until that changes."""
    view = manager().wait_for_session(session_id, query["wait"], caller())
    return view, 200, retry_after(view.retry_after_seconds)


@blueprint.post("/session/<session_id>/extend")
@blueprint.arguments(LeaseExtension)
@blueprint.response(200, SessionStatus)
def extend(extension: dict[str, float], session_id: str) -> SessionView:
    """Let an active session go on for so many seconds from now, within the server's limit."""
    return manager().extend_session(session_id, extension["lease_seconds"], caller())


@blueprint.delete("/session/<session_id>")
@blueprint.arguments(EndQuery, location="query")
@blueprint.response(204)
def end_session(query: dict[str, str], session_id: str) -> None:
    """Give a session back; its lab goes down behind this call."""
    manager().end_session(session_id, query["reason"], caller())


@blueprint.delete("/session")
@blueprint.arguments(CiJobQuery, location="query")
@blueprint.response(200, JobEnded)
def end_ci_job(query: dict[str, str]) -> dict[str, int]:
    """End the sessions that a CI job of yours left, waiting ones and active ones; none is as good as some."""
    return {"ended": manager().end_ci_job(query["ci_job"], caller())}


@blueprint.get("/active-session")
@blueprint.response(200, ActiveSession)
def active_session() -> SessionView:
    """The head of the queue, for its owner."""
    return manager().active_session(caller())


@blueprint.get("/queue")
@blueprint.arguments(NoQuery, location="query")
@blueprint.response(200, QueuePlace(many=True))
def queue(_query: dict[str, Any]) -> list[views.QueuePlace]:
    """Who is active and who waits, in order, without their session ids; the first 200, and your own behind them."""
    return manager().queue(caller())
