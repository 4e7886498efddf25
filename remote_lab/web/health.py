"""Is the server well, and what is it doing?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask_smorest import Blueprint

from remote_lab import __version__
from remote_lab.errors import ServerUnhealthy
from remote_lab.web.gate import manager, reaper
from remote_lab.web.schemas import DebugHealth

blueprint = Blueprint("health", __name__, description="The server itself")


@blueprint.get("/healthz")
@blueprint.response(204)
def healthz() -> None:
    """204 while the database answers and the reaper makes its rounds, 503 with the reason otherwise."""
    _check()


@blueprint.get("/debug/health")
@blueprint.response(200, DebugHealth)
def debug_health() -> dict[str, Any]:
    """What the server is doing; also while it is unhealthy, as long as its database can be read."""
    problem: str | None = None
    try:
        _check()
    except ServerUnhealthy as error:
        problem = error.detail
    return {
        "status": "ok" if problem is None else "unhealthy",
        "problem": problem,
        **asdict(manager().health()),
        "reaper_age_seconds": reaper().age_seconds(),
        "version": __version__,
    }


def _check() -> None:
    manager().check_database()
    reaper().check()
