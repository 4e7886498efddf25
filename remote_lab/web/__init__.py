"""HTTP: routes, the shape of the wire, errors as statuses. No SQL, no threads, no netlab."""

from __future__ import annotations

from flask import Flask
from flask_smorest import Api

from remote_lab import __version__
from remote_lab.web import auth, docs, errors, health, lab, requests, sessions

BLUEPRINTS = (sessions.blueprint, lab.blueprint, health.blueprint)


def register(app: Flask) -> None:
    """Add every route and the error handlers to the application."""
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    requests.register(app)
    auth.register(app)
    app.config.update(API_TITLE="Remote Lab Manager", API_VERSION=__version__, OPENAPI_VERSION="3.1.0")
    api = Api(app)
    for blueprint in BLUEPRINTS:
        api.register_blueprint(blueprint)
    docs.register(app, api)
    errors.register(app)
