"""The few requests that are made to servers on this host, with the standard library: a guard has to be light."""

from __future__ import annotations

import json
from typing import Any

ANSWER_BYTES = 1024 * 1024
CALL_SECONDS = 10.0


def call(method: str, url: str, token: str | None = None, seconds: float = CALL_SECONDS) -> tuple[int, Any]:
    """Return status and JSON of an answer, None for what is no JSON.

    `token` goes into the Authorization header. OSError when there is no answer within `seconds`.
    """
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import ProxyHandler, Request, build_opener

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = Request(url, method=method, headers=headers)  # noqa: S310 - the address of a server
    opener = build_opener(ProxyHandler({}))  # a proxy would look for this host on its own
    try:
        try:
            response = opener.open(request, timeout=seconds)
        except HTTPError as error:
            response = error
        with response:
            return int(response.status), _read_json(response.read(ANSWER_BYTES))
    except (HTTPException, ValueError) as error:
        raise OSError(f"{url} does not speak HTTP: {error}") from error


def _read_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def end_session(url: str, session_id: str, token: str | None) -> str | None:
    """End a session; returns what went wrong. One that has ended already is as good."""
    try:
        status, _ = call("DELETE", f"{url}/session/{session_id}", token)
    except OSError as error:
        return f"{url} does not answer: {error}"
    if status < 400 or status in (404, 410):
        return None
    return f"{url} answered {status}"
