"""The queue over HTTP."""

from __future__ import annotations

from flask_smorest import Blueprint

from remote_lab.core.views import SessionView
from remote_lab.web.gate import caller, manager, refresh
from remote_lab.web.schemas import ActiveSession, SessionCreated, SessionStatus

blueprint = Blueprint("sessions", __name__, description="Places in the queue")
blueprint.after_request(refresh)


@blueprint.post("/session")
@blueprint.response(201, SessionCreated)
def open_session() -> SessionView:
    """Take the next place in the queue."""
    return manager().open_session()


@blueprint.post("/session/heartbeat")
@blueprint.response(204)
def heartbeat() -> None:
    """Say that the session in X-Session-ID is alive."""
    manager().heartbeat(caller())


@blueprint.get("/session/<session_id>")
@blueprint.response(200, SessionStatus)
def session(session_id: str) -> SessionView:
    """Where a session is in the queue."""
    return manager().session(session_id)


@blueprint.delete("/session/<session_id>")
@blueprint.response(204)
def end_session(session_id: str) -> None:
    """Give a session back; its lab goes down behind this call."""
    manager().end_session(session_id, "its owner ended it")


@blueprint.get("/active-session")
@blueprint.response(200, ActiveSession)
def active_session() -> SessionView:
    """The head of the queue; `waiting` while the lab before it is on its way down."""
    return manager().active_session()
