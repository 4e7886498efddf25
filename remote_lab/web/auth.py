"""Who is calling: credentials of a request, checked before anything else of it, its path and its body included.

A token comes as `Authorization: Bearer TOKEN`, or as the password of Basic credentials, whatever the user; one that
comes as the user without a password counts as well, because URLs are written so. What tokens are is not known here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from flask import Flask, g, request

from remote_lab.callers import OPEN, RIGHTS, Caller
from remote_lab.errors import RightMissing, TokenInvalid, TokenRequired
from remote_lab.web.gate import manager
from remote_lab.web.requests import SESSION_HEADER

EVERYBODYS = frozenset({"health.healthz"})
"""What monitoring asks, which has no token."""


def register(app: Flask) -> None:
    """Let nobody in without a token where the server asks for one; to be called before other rooms register."""
    app.before_request(_recognise)
    app.before_request(_require_own_session)


def caller() -> Caller:
    """Who the request comes from."""
    found: Caller = g.caller
    return found


def require(right: str) -> None:
    """Raise RightMissing unless the caller has a right."""
    if right not in caller().rights:
        raise RightMissing(caller().name, right, [one for one in RIGHTS if one in caller().rights])


def _recognise() -> None:
    access = manager().access
    g.caller = OPEN
    if not access.entry.by_token or request.endpoint in EVERYBODYS:
        return
    token = token_of(request.headers.get("Authorization", ""))
    if not token:
        raise TokenRequired
    g.caller = access.recognise(token, client_address())


def _require_own_session() -> None:
    """Nobody learns of somebody else's session more than of one that never was, and nobody keeps it alive."""
    session_id = _session_in_question()
    if session_id is not None:
        manager().require_access(session_id, caller())
        g.named_session = session_id


def _session_in_question() -> str | None:
    if "session_id" in (request.view_args or {}):
        return str((request.view_args or {})["session_id"])
    needs_header = request.blueprint == "lab" or request.endpoint == "sessions.heartbeat"
    return request.headers.get(SESSION_HEADER) if needs_header else None


def token_of(authorization: str) -> str:
    """The token of an Authorization header, "" without one; TokenInvalid for what cannot be one."""
    scheme, _, credentials = authorization.strip().partition(" ")
    match scheme.lower():
        case "":
            return ""
        case "bearer":
            return credentials.strip()
        case "basic":
            return _password(credentials.strip())
    raise TokenInvalid("The Authorization header is neither Bearer nor Basic.")


def _password(credentials: str) -> str:
    try:
        user, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise TokenInvalid("The Basic credentials of the Authorization header cannot be read.") from None
    return password or user


def client_address() -> str:
    """Where the request comes from: the last address that none of our proxies has; a /64 of IPv6 is one client."""
    address = "unknown"
    for text in _hops():
        address = text
        try:
            parsed = ip_address(text)
        except ValueError:
            break
        if not _is_proxy(parsed):
            return str(parsed) if isinstance(parsed, IPv4Address) else str(ip_network((int(parsed), 64), strict=False))
    return address


def _is_proxy(address: IPv4Address | IPv6Address) -> bool:
    proxies = manager().config.proxies
    return proxies is not None and address in proxies


def _hops() -> Iterator[str]:
    """The addresses that a request came through, the nearest first; those after an untrusted one may be forged."""
    yield request.remote_addr or "unknown"
    yield from reversed(
        [part.strip() for part in request.headers.get("X-Forwarded-For", "").split(",") if part.strip()]
    )
