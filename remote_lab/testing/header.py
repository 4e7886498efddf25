"""What is said about the server before the first test: one line, which costs one request and never fails."""

from __future__ import annotations

from typing import Any

import requests

from remote_lab.client.address import address_of
from remote_lab.testing.settings import Settings

LOOK_SECONDS = 5.0
"""A server that is silent for longer is told to be so; the first test waits for it properly."""


def standing(settings: Settings) -> str:
    """Return `remote lab: URL, position N, PROVIDER`, as far as the server says."""
    if not settings.url:
        return "remote lab: local"
    try:
        said = _ask(settings)
    except (requests.RequestException, ValueError) as error:
        return f"remote lab: {settings.shown_url}, no word from it: {_reason(error)}"
    return ", ".join([f"remote lab: {settings.shown_url}", *said])


def _ask(settings: Settings) -> list[str]:
    address = address_of(settings.url or "", settings.token)
    timeout = min(LOOK_SECONDS, settings.request_timeout or LOOK_SECONDS)
    response = requests.get(f"{address.url}/debug/health", auth=address.auth, timeout=timeout)
    response.raise_for_status()
    health: Any = response.json()
    if not isinstance(health, dict):
        raise requests.RequestException("this is not the answer of a Remote Lab Manager")
    said = []
    if settings.session_id:
        said.append("a session that is open already")
    elif isinstance(health.get("queue_length"), int):
        said.append(f"position {health['queue_length']}")
    if health.get("provider"):
        said.append(str(health["provider"]))
    return said


def _reason(error: Exception) -> str:
    """Return what went wrong in one line: of a failed connection what the system says, without the way there."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
        reason = getattr(cause, "reason", None) or (cause.args[0] if cause.args else None)
        cause = reason if isinstance(reason, BaseException) else cause.__cause__ or cause.__context__
    return " ".join(str(error).split())
