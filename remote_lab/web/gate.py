"""For which session: the header that names it, checked before the rest of a request, and the proof of life it is.

The order of answers is: header missing 422 (together with whatever else does not validate), session unknown 404,
session waiting 423, and only then the route's own validation.
"""

from __future__ import annotations

from typing import TypeVar, cast

from flask import Response, current_app, g, request

from remote_lab import logs
from remote_lab.core.manager import LabManager
from remote_lab.core.reaper import Reaper
from remote_lab.web.errors import SessionHeaderMissing
from remote_lab.web.requests import SESSION_HEADER

View = TypeVar("View")
Answer = tuple[View, int, dict[str, str]]
"""A view, its status and its headers, as flask-smorest takes them."""


def retry_after(seconds: int | None) -> dict[str, str]:
    """The header that says when to ask again, if it is worth saying."""
    return {} if seconds is None else {"Retry-After": str(seconds)}


def manager() -> LabManager:
    """The application's manager."""
    return cast(LabManager, current_app.extensions["remote_lab"])


def require_active_session() -> None:
    """Before a request: refuse a session that may not use labs.

    A missing header is left to `named_session()`, see above.
    """
    session_id = request.headers.get(SESSION_HEADER)
    if session_id is None:
        g.session_header_missing = True
    else:
        logs.concerns(topology=manager().require_active(session_id))


def named_session() -> str:
    """The session id of this request; SessionHeaderMissing."""
    session_id = request.headers.get(SESSION_HEADER)
    if session_id is None:
        raise SessionHeaderMissing
    return session_id


def refresh(response: Response) -> Response:
    """After a request: a call that succeeded and named a session proves that its owner is alive."""
    session_id = g.get("named_session")
    if session_id is not None and response.status_code < 400 and request.method != "OPTIONS":
        manager().touch(session_id)
    return response


def reaper() -> Reaper:
    """The application's reaper, which the server starts."""
    return cast(Reaper, current_app.extensions["remote_lab_reaper"])
