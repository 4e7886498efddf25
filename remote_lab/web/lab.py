"""The lab of the active session in X-Session-ID."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify, request

from remote_lab import logs
from remote_lab.core.following import LogFollower
from remote_lab.core.views import Acquired, Devices, DeviceStates, LabView
from remote_lab.web.auth import caller
from remote_lab.web.connection import EventStream, client_is_gone, preferred_wait_seconds, prefers_async
from remote_lab.web.gate import Answer, manager, named_session, refresh, require_active_session, retry_after
from remote_lab.web.parsing import StrictBlueprint
from remote_lab.web.schemas import (
    AcquireHeader,
    DestroyQuery,
    Device,
    FollowQuery,
    LabAcquired,
    LabForm,
    LabState,
    LabStatus,
    NoQuery,
    WaitQuery,
)
from remote_lab.web.uploads import admit_upload, uploaded

blueprint = StrictBlueprint("lab", __name__, description="The lab of the active session")
blueprint.before_request(require_active_session)
blueprint.before_request(lambda: admit_upload() if request.endpoint == f"{blueprint.name}.acquire" else None)
blueprint.after_request(refresh)


@blueprint.post("/lab")
@blueprint.arguments(LabForm, location="files")
@blueprint.arguments(AcquireHeader, location="headers")
@blueprint.response(200, LabAcquired)
@blueprint.alt_response(202, schema=LabStatus, success=True, description="On its way, as `Prefer: respond-async` wants")
def acquire(form: dict[str, Any], header: dict[str, str | None]) -> Acquired | Response:
    """Boot the uploaded topology, or share the lab that already runs it; answers when its devices are there."""
    logs.concerns(topology=form["topology"].filename)
    topology, extra_files = uploaded(form["topology"], form["extra_files"])
    desk = manager().desk
    wanted = (named_session(), topology, extra_files, form["reuse"], header["acquire_id"], caller())
    acquired: Acquired | None
    if prefers_async():
        acquired = desk.acquire_without_waiting(*wanted, patience_seconds=preferred_wait_seconds())
    else:
        acquired = desk.acquire(*wanted)
    if acquired is not None:
        # Whoever gave it a name comes back for it, or releases it by that name.
        if header["acquire_id"] is None and client_is_gone():
            desk.release(named_session())
        return acquired
    response = jsonify(LabStatus().dump(manager().inspection.lab(named_session(), asks_netlab=False)))
    response.status_code = 202
    response.headers.update({"Preference-Applied": "respond-async", "Location": "/lab"})
    return response


@blueprint.get("/lab")
@blueprint.arguments(WaitQuery, location="query")
@blueprint.response(200, LabStatus)
def status(query: dict[str, float]) -> Answer[LabView]:
    """The session's lab, also when it has none; with `wait`, held until state or phase changes unless it runs."""
    inspection, wait = manager().inspection, query["wait"]
    view = inspection.wait_for_lab(named_session(), wait) if wait else inspection.lab(named_session())
    return view, 200, retry_after(view.retry_after_seconds)


@blueprint.get("/lab/log")
@blueprint.arguments(FollowQuery, location="query")
@blueprint.response(200, content_type="text/plain")
def log(query: dict[str, bool]) -> Response:
    """The boot log; with `follow`, as server-sent events until the boot is over."""
    inspection = manager().inspection
    if not query["follow"]:
        return Response(inspection.boot_log(named_session()).path.read_bytes(), mimetype="text/plain")
    offset = request.headers.get("Last-Event-ID", "0")
    events = EventStream(LogFollower(inspection, named_session(), int(offset) if offset.isdecimal() else 0))
    return Response(
        events, mimetype="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )


@blueprint.get("/lab/devices")
@blueprint.response(200, Device(many=True))
def devices() -> Devices:
    """The devices of the running lab."""
    return manager().inspection.devices(named_session())


@blueprint.get("/lab/ssh-key")
@blueprint.arguments(NoQuery, location="query")
@blueprint.response(200, content_type="text/plain")
def ssh_key(_query: dict[str, Any]) -> Response:
    """The private key that logs in to every device of the running lab; made for this lab, and gone with it."""
    return Response(
        manager().inspection.login_key(named_session()), mimetype="text/plain", headers={"Cache-Control": "no-store"}
    )


@blueprint.get("/lab/state")
@blueprint.arguments(NoQuery, location="query")
@blueprint.response(200, LabState)
def state(_query: dict[str, Any]) -> dict[str, DeviceStates]:
    """What the devices of the running lab say of themselves; configurations and show commands, in seconds."""
    return {"devices": manager().inspection.device_state(named_session())}


@blueprint.post("/lab/release")
@blueprint.arguments(AcquireHeader, location="headers")
@blueprint.response(204)
def release(header: dict[str, str | None]) -> None:
    """Give one reference back; the lab keeps running, idle when it was the last."""
    if header["acquire_id"] is None:
        manager().desk.release(named_session())
    else:
        manager().desk.release_named(named_session(), header["acquire_id"])


@blueprint.delete("/lab")
@blueprint.arguments(DestroyQuery, location="query")
@blueprint.response(202)
@blueprint.alt_response(204, success=True, description="There was no lab")
def destroy(query: dict[str, bool]) -> Response:
    """Take the lab down behind this call, also while it boots; without `force` only an unreferenced one."""
    return Response(status=202 if manager().desk.destroy(named_session(), query["force"]) else 204)
