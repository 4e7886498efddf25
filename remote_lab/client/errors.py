"""What the client raises: the `requests` exceptions, with the server's reason in them. No request is made here.

The tree:

    requests.HTTPError
    `-- RemoteLabHTTPError      any refusal; `code`, `detail`, `phase`, `log_tail`, `response`
        |-- SessionGoneError    the session has ended: silent for too long, ended by somebody, or unknown
        `-- LabBootError        the lab did not come up, or its boot was ended
    requests.Timeout, TimeoutError
    `-- LabAcquisitionTimeout   the lab could not be had in time
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests


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


class LabAcquisitionTimeout(requests.Timeout, TimeoutError):
    """The lab was busy, or booting, for longer than the client wants to wait."""


_CLASSES_BY_CODE: dict[str | None, type[RemoteLabHTTPError]] = {
    "session_not_found": SessionGoneError,
    "lab_boot_failed": LabBootError,
    "lab_boot_cancelled": LabBootError,
}


def refusal(response: requests.Response) -> RemoteLabHTTPError:
    """Return the error for an answer, made from `{detail, code, phase, log_tail}` as far as the body has them."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        body = {}
    code = str(body["code"]) if body.get("code") else None
    detail = body.get("detail") or response.reason or "no reason given"
    log_tail = str(body.get("log_tail") or "")
    label = f"{response.status_code} {code}" if code else f"{response.status_code}"
    message = f"{response.request.method} {without_user_info(response.url)}: {label}: {_sentence(detail)}"
    if log_tail:
        message += f"\n--- end of the boot log ---\n{log_tail}"
    error_class = _CLASSES_BY_CODE.get(code, RemoteLabHTTPError)
    return error_class(
        message, response, code=code, detail=detail, phase=str(body.get("phase") or ""), log_tail=log_tail
    )


def without_user_info(url: str) -> str:
    """Return the URL as it may be shown: without a user and password in it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _sentence(detail: object) -> str:
    """Return a detail as one line; of a list of `{loc, msg}`, `loc: msg` of each."""
    if not isinstance(detail, list):
        return str(detail)
    return "; ".join(
        f"{'.'.join(map(str, entry.get('loc', ())))}: {entry.get('msg')}" if isinstance(entry, dict) else str(entry)
        for entry in detail
    )
