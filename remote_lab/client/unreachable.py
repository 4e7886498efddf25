"""Why a request was not answered, as a sentence for people: what `requests` says of it is meant for its developers."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from http.client import RemoteDisconnected

import requests
import urllib3

from remote_lab.client.errors import WHERE_TO_LOOK, ServerSilentError, ServerUnreachableError, short_ids

NO_ANSWER = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
"""What `requests` raises where no answer came, or not all of it."""


_NO_TLS = "Is it http:// and not https://?"


def unreachable(
    error: requests.RequestException, url: str, request: str, timeout: float | tuple[float, float]
) -> ServerUnreachableError:
    """Return what is raised instead of one of `NO_ANSWER`.

    Args:
        error: to be its cause.
        url: the server's, as it may be shown.
        request: method and path.
        timeout: of connecting and of reading, seconds.
    """
    connect_seconds, read_seconds = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    causes = list(_causes(error))

    def cause(*kinds: type[BaseException]) -> BaseException | None:
        return next((one for one in causes if isinstance(one, kinds)), None)

    # A refused connection is a timeout as well in urllib3's tree.
    refused = cause(urllib3.exceptions.NewConnectionError, urllib3.exceptions.ProxyError)
    if refused is None and cause(urllib3.exceptions.ConnectTimeoutError) is not None:
        reason = f"no connection within {connect_seconds:g} s"
        return _error(ServerSilentError, error, f"No Remote Lab Manager answers at {url}: {reason}. {WHERE_TO_LOOK}")
    if url.startswith("https:") and any("handshake" in str(one) for one in causes if isinstance(one, TimeoutError)):
        sentence = f"No TLS with {url} within {connect_seconds:g} s. {_NO_TLS}"
        return _error(ServerSilentError, error, sentence)
    if cause(urllib3.exceptions.ReadTimeoutError) is not None:
        sentence = (
            f"{url} has not answered {short_ids(request)} within {read_seconds:g} s. Is it a Remote Lab Manager, "
            "and well? A slow one is given more time by request_timeout or REMOTE_LAB_REQUEST_TIMEOUT."
        )
        return _error(ServerSilentError, error, sentence)
    return _error(ServerUnreachableError, error, _sentence(causes, url))


def _sentence(causes: list[BaseException], url: str) -> str:
    for one in causes:
        if isinstance(one, urllib3.exceptions.ProxyError):
            return (
                f"The proxy to {url} does not let through: {_reason(causes)}. It is set by HTTP_PROXY, HTTPS_PROXY or "
                "ALL_PROXY; hosts that need none are named in NO_PROXY."
            )
        if isinstance(one, ssl.SSLCertVerificationError):
            return (
                f"The certificate of {url} is not trusted: {one.verify_message.rstrip('.')}. Is REMOTE_LAB_URL right? "
                "A certificate authority of your own is named by REQUESTS_CA_BUNDLE."
            )
        if isinstance(one, ssl.SSLError):
            why = (one.reason or "no TLS").replace("_", " ").lower()
            return f"No TLS with {url}: {why}. {_NO_TLS}"
    return f"No Remote Lab Manager answers at {url}: {_reason(causes)}. {WHERE_TO_LOOK}"


def _reason(causes: list[BaseException]) -> str:
    for one in causes:
        if isinstance(one, socket.gaierror):
            return f"its name cannot be resolved ({one.strerror})"
        if isinstance(one, RemoteDisconnected):
            return "it hung up without an answer"
        if isinstance(one, OSError) and one.errno and not isinstance(one, requests.RequestException):
            return os.strerror(one.errno).lower()
    return "the answer broke off" if len(causes) > 1 else str(causes[0])


def _error(
    kind: type[ServerUnreachableError], error: requests.RequestException, sentence: str
) -> ServerUnreachableError:
    return kind(sentence, request=error.request)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those inside it, outermost first, however `requests` and `urllib3` have packed them."""
    seen: set[int] = set()
    open_ends: list[object] = [error]
    while open_ends:
        one = open_ends.pop(0)
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            open_ends += [*one.args, getattr(one, "reason", None), one.__cause__, one.__context__]
