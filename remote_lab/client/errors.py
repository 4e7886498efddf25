"""What the client raises: the `requests` exceptions, with the server's reason in them. No request is made here.

The tree:

    requests.HTTPError
    `-- RemoteLabHTTPError      any refusal; `code`, `detail`, `phase`, `log_tail`, `response`
        |-- SessionGoneError    the session has ended: silent for too long, ended by somebody, or unknown
        `-- LabBootError        the lab did not come up, or its boot was ended
    requests.ConnectionError
    `-- ServerUnreachableError  no answer: nobody there, an unknown name, no TLS, a connection that broke off
        `-- ServerSilentError   no answer in time; a requests.Timeout as well
    requests.Timeout, TimeoutError
    `-- LabAcquisitionTimeout   the lab could not be had in time

Messages go into logs that many read, so session ids are shortened in them: whoever knows one may use the session.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urljoin

import requests

from remote_lab.urls import without_user_info


class RemoteLabHTTPError(requests.HTTPError):
    """The server refused a request; the message has its reason and, after a failed boot, the end of the boot log.

    `code` is the server's stable name for the reason (None when it gave none), `detail` its sentence (after a 422 a
    list of `{loc, msg, type}`), `phase` the step of the boot that failed and `log_tail` the last lines of the boot
    log, both "" where there was no boot. `response` is the whole answer.
    """

    response: requests.Response

    def __init__(
        self,
        message: str,
        response: requests.Response,
        *,
        code: str | None = None,
        detail: str | list[Any] = "",
        phase: str = "",
        log_tail: str = "",
    ) -> None:
        super().__init__(message, response=response, request=response.request)
        self.code = code
        self.detail = detail
        self.phase = phase
        self.log_tail = log_tail


class SessionGoneError(RemoteLabHTTPError):
    """The session has ended; the message says why, as far as the server knows."""


class LabBootError(RemoteLabHTTPError):
    """The lab did not come up; `phase` and `log_tail` say how far netlab got."""


class ServerUnreachableError(requests.ConnectionError):
    """No server answered; the message says why and what to look at, `__cause__` is the exception of `requests`."""


class ServerSilentError(ServerUnreachableError, requests.Timeout):
    """No server answered in time, or none could be connected to in time."""


class LabAcquisitionTimeout(requests.Timeout, TimeoutError):
    """The lab was busy, or booting, for longer than the client wants to wait."""


WHERE_TO_LOOK = "Is REMOTE_LAB_URL right, does the server run?"

_SESSION_ID = re.compile(r"\b([0-9a-f]{8})(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")

_GONE_WITHOUT_CODE = "Session not found"
"""How neops-remote-lab 1.4.0, which has no codes, says that a session is gone."""

_CLASSES_BY_CODE: dict[str | None, type[RemoteLabHTTPError]] = {
    "session_not_found": SessionGoneError,
    "lab_boot_failed": LabBootError,
    "lab_boot_cancelled": LabBootError,
}


def refusal(response: requests.Response, *, about_session: bool = False) -> RemoteLabHTTPError:
    """Return the error for an answer, made from `{detail, code, phase, log_tail}` as far as the body has them.

    `about_session`: a 404 says that the session is gone, also when it has no code to say so.
    """
    try:
        body = response.json()
    except ValueError:
        body = None
    has_word = isinstance(body, dict)
    if not has_word:
        body = {}
    code = str(body["code"]) if body.get("code") else None
    detail = _with_short_ids(body.get("detail")) or _redirection(response) or response.reason or "no reason given"
    if not has_word and not response.is_redirect:
        detail = f"{detail}, and not from a Remote Lab Manager. {WHERE_TO_LOOK}"
    log_tail = str(body.get("log_tail") or "")
    label = f"{response.status_code} {code}" if code else f"{response.status_code}"
    message = f"{request_line(response)}: {label}: {_sentence(detail)}{log_section(log_tail)}"
    error_class = _CLASSES_BY_CODE.get(code, RemoteLabHTTPError)
    if has_word and code is None and response.status_code == 404 and (about_session or detail == _GONE_WITHOUT_CODE):
        error_class = SessionGoneError
    return error_class(
        message, response, code=code, detail=detail, phase=str(body.get("phase") or ""), log_tail=log_tail
    )


def request_line(response: requests.Response) -> str:
    """Return the method and the URL of an answer's request, as they may be shown."""
    return f"{response.request.method} {short_ids(without_user_info(response.url))}"


def short_ids(text: str) -> str:
    """Return the text with the first 8 characters of each session id: enough to find it in a log, not to use it."""
    return _SESSION_ID.sub(r"\1", text)


def log_section(log_tail: str) -> str:
    """Return the end of a boot log as the last lines of a message; "" without one."""
    return f"\n--- end of the boot log ---\n{log_tail}" if log_tail else ""


def _with_short_ids(detail: Any) -> Any:
    return short_ids(detail) if isinstance(detail, str) else detail


def _redirection(response: requests.Response) -> str | None:
    """Return what to do about an answer that sends the client elsewhere; no token goes where it was not meant to."""
    location = response.headers.get("Location")
    if not response.is_redirect or not location:
        return None
    target = without_user_info(urljoin(response.url, location))
    return f"the server says that this is at {target}. Redirects are not followed: check the URL."


def _sentence(detail: object) -> str:
    """Return a detail as one line; of a list of `{loc, msg}`, `loc: msg` of each."""
    if not isinstance(detail, list):
        return str(detail)
    return "; ".join(
        f"{'.'.join(map(str, entry.get('loc', ())))}: {entry.get('msg')}" if isinstance(entry, dict) else str(entry)
        for entry in detail
    )
