"""The queue over HTTP."""

from __future__ import annotations

from typing import Any

from remote_lab import logs
from remote_lab.callers import USE
from remote_lab.core import views
from remote_lab.core.sessions import Wish
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
    SessionStatus,
    SessionWish,
    WaitQuery,
)

blueprint = StrictBlueprint("sessions", __name__, description="Places in the queue")
blueprint.after_request(refresh)


@blueprint.post("/session")
@blueprint.arguments(SessionWish, required=False)
@blueprint.response(201, SessionCreated)
def open_session(wish: dict[str, Any]) -> SessionView:
    """Take the next place in the queue."""
    require(USE)
    view = manager().open_session(Wish(**wish), caller())
    logs.concerns(session_id=view.session_id)
    return view


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
    """The head of the queue, for its owner; `waiting` while the lab before it is on its way down."""
    return manager().active_session(caller())


@blueprint.get("/queue")
@blueprint.arguments(NoQuery, location="query")
@blueprint.response(200, QueuePlace(many=True))
def queue(_query: dict[str, Any]) -> list[views.QueuePlace]:
    """Who is active and who waits, in order, without their session ids; the first 200, and your own behind them."""
    return manager().queue(caller())
