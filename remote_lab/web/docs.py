"""The OpenAPI document at /openapi.json, and Swagger UI at /docs from files of this machine: no other site is asked."""

from __future__ import annotations

import hashlib
import mimetypes
from copy import deepcopy
from functools import cache, partial
from pathlib import Path

import flask_swagger_ui
from flask import Flask, Response, abort, jsonify, request, url_for
from flask_smorest import Api

from remote_lab.web.openapi import complete

FILES = frozenset({"swagger-ui.css", "swagger-ui-bundle.js", "favicon-16x16.png", "favicon-32x32.png"})
"""What the page needs of the files that flask-swagger-ui ships."""
POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
"""Content-Security-Policy of the page: browsers do not go elsewhere for it, whatever its files say."""
CACHED_SECONDS = 3600

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Remote Lab Manager</title>
<link rel="stylesheet" href="{files}swagger-ui.css">
<link rel="icon" type="image/png" href="{files}favicon-32x32.png" sizes="32x32">
</head>
<body>
<div id="docs" data-document="{document}"></div>
<script src="{files}swagger-ui-bundle.js"></script>
<script src="{files}start.js"></script>
</body>
</html>
"""
START = """\
SwaggerUIBundle({
  url: document.getElementById("docs").dataset.document,
  dom_id: "#docs",
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
  deepLinking: true,
  displayRequestDuration: true,
  persistAuthorization: true,
  validatorUrl: null,
});
"""


def register(app: Flask, api: Api) -> None:
    """Serve the document of an API whose blueprints are all registered, and the page that shows it."""
    document = complete(deepcopy(api.spec.to_dict()))
    app.add_url_rule("/openapi.json", "openapi", partial(jsonify, document), methods=["GET"])
    app.add_url_rule("/docs", "docs", _page, methods=["GET"])
    app.add_url_rule("/docs/<name>", "docs_file", _file, methods=["GET"])


def _page() -> Response:
    files = url_for("docs_file", name="x").removesuffix("x")
    response = Response(PAGE.format(files=files, document=url_for("openapi")), mimetype="text/html")
    response.headers["Content-Security-Policy"] = POLICY
    return response


def _file(name: str) -> Response:
    if name == "start.js":
        return Response(START, mimetype="text/javascript")
    if name not in FILES:
        abort(404, description="The page of the API has no such file.")
    content, etag = _content(name)
    response = Response(content, mimetype=mimetypes.guess_type(name)[0])
    response.cache_control.max_age = CACHED_SECONDS
    response.set_etag(etag)
    response.make_conditional(request)
    return response


@cache
def _content(name: str) -> tuple[bytes, str]:
    """In one piece: files are sent in pieces of 8 KiB otherwise, which costs the time of others."""
    content = (Path(str(flask_swagger_ui.__file__)).parent / "dist" / name).read_bytes()
    return content, hashlib.sha256(content).hexdigest()[:32]
