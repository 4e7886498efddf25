"""Is the server well, and what is it doing?"""

from __future__ import annotations

from flask_smorest import Blueprint

from remote_lab.core.manager import HealthView
from remote_lab.web.gate import manager, reaper
from remote_lab.web.schemas import DebugHealth

blueprint = Blueprint("health", __name__, description="The server itself")


@blueprint.get("/healthz")
@blueprint.response(204)
def healthz() -> None:
    """204 while the database answers and the reaper runs, 503 with the reason otherwise."""
    manager().check_database()
    reaper().check()


@blueprint.get("/debug/health")
@blueprint.response(200, DebugHealth)
def debug_health() -> HealthView:
    """How long the server is up and how many sessions it has."""
    return manager().health()
