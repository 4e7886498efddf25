"""How requests reach the server: connections, retries, pauses, and the heartbeat. What they mean is not known here."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from remote_lab import __version__
from remote_lab.client.errors import refusal

_log = logging.getLogger(__name__)

REPEATABLE_METHODS = ("GET", "HEAD", "OPTIONS", "DELETE")
RETRY_BACKOFF_FACTOR = 1.0

PAUSE_SECONDS_MIN = 0.05
"""No `Retry-After` makes a busy loop."""
PAUSE_SECONDS_MAX = 60.0
"""No `Retry-After` makes a waiting session go stale."""


class Wire:
    """Requests to one server; each thread has its own, because a `requests.Session` promises nothing to two."""

    def __init__(self, base_url: str, request_timeout_seconds: float) -> None:
        self._base_url = base_url
        self._request_timeout_seconds = request_timeout_seconds
        retries = Retry(
            total=3,
            status_forcelist=(429, 500, 502, 503, 504),
            backoff_factor=RETRY_BACKOFF_FACTOR,
            allowed_methods=REPEATABLE_METHODS,
            # The last answer is wanted as it is, with the server's reason in it; and a Retry-After is left to the
            # client's own loops, which know a deadline.
            raise_on_status=False,
            respect_retry_after_header=False,
        )
        self._http = _http_session(HTTPAdapter(max_retries=retries))
        # `allowed_methods` lets a refused connection be tried again with any method, so POST goes another way.
        self._http_once = _http_session(HTTPAdapter())

    def call(self, method: str, path: str, accept: Collection[int], **kwargs: Any) -> requests.Response:
        """Return the answer when its status is one of `accept`, else raise the `RemoteLabHTTPError` it stands for.

        `kwargs` go to `requests`; `requests.RequestException` is raised when the server cannot be reached.
        """
        kwargs.setdefault("timeout", self._request_timeout_seconds)
        http = self._http if method in REPEATABLE_METHODS else self._http_once
        response = http.request(method, self._base_url + path, **kwargs)
        _log.debug("%s %s: %d", method, path, response.status_code)
        if response.status_code not in accept:
            raise refusal(response)
        return response

    def close(self) -> None:
        """Let go of all connections; the next call would open new ones."""
        self._http.close()
        self._http_once.close()


class Heartbeat:
    """A daemon thread that tells the server that a session lives, until it is stopped or the session is gone."""

    def __init__(self, base_url: str, request_timeout_seconds: float, session_id: str, interval_seconds: float) -> None:
        self._wire = Wire(base_url, request_timeout_seconds)
        self._session_id = session_id
        self._interval_seconds = interval_seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"remote-lab-heartbeat-{session_id}", daemon=True)

    def start(self) -> None:
        """Send the first heartbeat after one interval."""
        self._thread.start()

    def stop(self) -> None:
        """Send no more; one that is on its way is not waited for, it does no harm."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_seconds):
            try:
                self._wire.call("POST", "/session/heartbeat", (200, 204), headers={"X-Session-ID": self._session_id})
            except requests.RequestException as error:
                if self._stopped.is_set():
                    break
                if error.response is not None and error.response.status_code == 404:
                    _log.error("Session %s is gone: %s", self._session_id, error)
                    break
                _log.warning("Heartbeat of session %s failed, more follow: %s", self._session_id, error)
        self._wire.close()


def _http_session(adapter: HTTPAdapter) -> requests.Session:
    http = requests.Session()
    http.mount("http://", adapter)
    http.mount("https://", adapter)
    # A kept connection may be closed by the server in the moment a POST goes out, which can't be sent again; and it
    # would occupy the server for a client that speaks every few seconds at most.
    http.headers.update({"User-Agent": f"remote-lab/{__version__}", "Connection": "close"})
    return http


def pause_seconds(response: requests.Response | None, default_seconds: float) -> float:
    """Return how long to wait before asking again: a `Retry-After` in seconds, else the default.

    A `Retry-After` with a date (RFC 9110, 10.2.3) counts as none: the two clocks may differ.
    """
    asked = "" if response is None else response.headers.get("Retry-After", "")
    if not asked.replace(".", "", 1).isdecimal():
        return default_seconds
    return min(max(float(asked), PAUSE_SECONDS_MIN), PAUSE_SECONDS_MAX)
