"""How requests become arguments: whole forms, and nothing unknown passed over. What they mean is not known here."""

from __future__ import annotations

from typing import Any, cast

from flask import Request, g
from flask_smorest import Blueprint
from marshmallow import RAISE, Schema, ValidationError
from webargs.flaskparser import FlaskParser
from webargs.multidictproxy import MultiDictProxy
from werkzeug.datastructures import CombinedMultiDict

from remote_lab.errors import UploadMalformed
from remote_lab.web.errors import SessionHeaderMissing

ONCE = ("topology", "reuse", "purpose", "ci_job_url", "ci_job_id", "lease_seconds", "identity")
"""Parts of a form of which a second would be passed over."""


class StrictParser(FlaskParser):
    """Reads a multipart form as one thing, its fields and its files; a misspelt name is an error wherever it stands."""

    DEFAULT_UNKNOWN_BY_LOCATION = {**FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION, "query": RAISE, "files": RAISE}  # noqa: RUF012 - webargs declares it so

    def load_json(self, req: Request, schema: Schema) -> Any:
        try:
            return super().load_json(req, schema)
        except RecursionError as error:
            raise ValidationError(["The JSON is nested too deeply."]) from error

    def load_querystring(self, req: Request, schema: Schema) -> MultiDictProxy:
        twice = [name for name, values in req.args.lists() if len(values) > 1]
        if twice:
            raise ValidationError({name: ["is there more than once, one is expected"] for name in twice})
        return cast(MultiDictProxy, super().load_querystring(req, schema))

    def load_files(self, req: Request, schema: Schema) -> MultiDictProxy:
        try:
            form = CombinedMultiDict[str, Any]([cast(Any, req.files), cast(Any, req.form)])
        except ValueError as error:
            raise _malformed(_explained(error)) from error
        for name in ONCE:
            if (parts := len(form.getlist(name))) > 1:
                raise _malformed(f"it has {parts} parts named {name!r}, one is expected")
        return MultiDictProxy(form, schema)


class StrictBlueprint(Blueprint):
    """A blueprint whose `files` arguments are whole forms, and which refuses words it does not know."""

    ARGUMENTS_PARSER = StrictParser()


def _malformed(why: str) -> Exception:
    """A missing session header is said before anything else of a request."""
    return SessionHeaderMissing() if g.get("session_header_missing") else UploadMalformed(why)


def _explained(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "the header of a part is not UTF-8"
    if "cannot parse beyond" in str(error):
        return "its closing boundary is missing, as if it had been cut off"
    return str(error)[:1].lower() + str(error)[1:]
