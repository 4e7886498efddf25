"""Where the server is and who asks: a URL that may be shown, and credentials that may not. No request is made here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit, urlunsplit

import requests
from requests.auth import HTTPBasicAuth

Auth = Callable[[requests.PreparedRequest], requests.PreparedRequest]


@dataclass(frozen=True)
class Address:
    """A server, and how to prove to it who asks."""

    url: str
    """Without user, password and a slash at the end."""
    auth: Auth | None = field(default=None, repr=False)
    """Sets the Authorization header of a request; None: whatever ~/.netrc has for the host, as `requests` does."""


class BearerAuth(requests.auth.AuthBase):
    """A token in the Authorization header.

    As `auth` and not as a header, because `requests` replaces a header by what ~/.netrc has for the host.
    """

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def address_of(url: str, token: str | None) -> Address:
    """Return the address of a base URL, which may have a user and a password in it, and a token.

    Raises ValueError, which shows neither password nor token, for what is no URL of a server, a token that no header
    can carry, and for both kinds of credentials at the same time.
    """
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    else:
        if parts.scheme not in ("http", "https"):
            host = None
    if not host:
        shown = url.rpartition("@")[2]
        raise ValueError(f"{shown!r} is no address of a server: expected something like http://lab-host:8000.")
    netloc = f"[{host}]" if ":" in host else host
    shown = urlunsplit((parts.scheme, netloc if port is None else f"{netloc}:{port}", parts.path, "", "")).rstrip("/")
    has_user = parts.username is not None
    if token is not None and not (token.isascii() and token.isprintable() and token.strip() and " " not in token):
        raise ValueError("The token cannot be sent: expected printable ASCII characters without spaces.")
    if token is not None and has_user:
        raise ValueError(
            f"There is both a token and a user in the URL of {shown}, but a request has one Authorization header. "
            "Take one of them away (token, REMOTE_LAB_TOKEN, or the user in REMOTE_LAB_URL)."
        )
    if token is not None:
        return Address(shown, BearerAuth(token))
    if has_user:
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        return Address(shown, HTTPBasicAuth(user.encode(), password.encode()))
    return Address(shown)
