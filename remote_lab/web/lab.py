"""The lab of the active session in X-Session-ID."""

from __future__ import annotations

from typing import Any, cast

from flask import Request, Response
from flask_smorest import Blueprint
from marshmallow import Schema
from webargs.flaskparser import FlaskParser
from webargs.multidictproxy import MultiDictProxy
from werkzeug.datastructures import CombinedMultiDict, FileStorage

from remote_lab.core.views import Acquired, Devices, LabView
from remote_lab.core.workspace import UploadedFile
from remote_lab.web.gate import caller, manager, refresh, require_active_session
from remote_lab.web.schemas import DestroyQuery, Device, LabAcquired, LabForm, LabStatus


class FormParser(FlaskParser):
    """Reads a multipart form as one thing: its fields and its files."""

    def load_files(self, req: Request, schema: Schema) -> MultiDictProxy:
        return MultiDictProxy(CombinedMultiDict([req.files, req.form]), schema)


class LabBlueprint(Blueprint):
    """A blueprint whose `files` arguments are whole forms."""

    ARGUMENTS_PARSER = FormParser()


blueprint = LabBlueprint("lab", __name__, description="The lab of the active session")
blueprint.before_request(require_active_session)
blueprint.after_request(refresh)


@blueprint.post("/lab")
@blueprint.arguments(LabForm, location="files")
@blueprint.response(200, LabAcquired)
def acquire(form: dict[str, Any]) -> Acquired:
    """Boot the uploaded topology, or share the lab that already runs it; answers when its devices are there."""
    extra_files = [_uploaded(part) for part in form["extra_files"]]
    return manager().desk.acquire(caller(), _uploaded(form["topology"]), extra_files, form["reuse"])


@blueprint.get("/lab")
@blueprint.response(200, LabStatus)
def status() -> LabView:
    """The session's lab, also when it has none."""
    return manager().desk.lab(caller())


@blueprint.get("/lab/devices")
@blueprint.response(200, Device(many=True))
def devices() -> Devices:
    """The devices of the running lab."""
    return manager().desk.devices(caller())


@blueprint.post("/lab/release")
@blueprint.response(204)
def release() -> None:
    """Give one reference back; the lab keeps running, idle when it was the last."""
    manager().desk.release(caller())


@blueprint.delete("/lab")
@blueprint.arguments(DestroyQuery, location="query")
@blueprint.response(202)
@blueprint.alt_response(204, success=True, description="There was no lab")
def destroy(query: dict[str, bool]) -> Response:
    """Take the lab down behind this call, also while it boots; without `force` only an unreferenced one."""
    return Response(status=202 if manager().desk.destroy(caller(), query["force"]) else 204)


def _uploaded(part: FileStorage) -> UploadedFile:
    return UploadedFile(part.filename or "", cast(Any, part.stream))
