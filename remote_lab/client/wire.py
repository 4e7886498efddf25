"""How requests reach the server: connections, retries, pauses. What they mean is not known here."""

from __future__ import annotations

import logging
from collections.abc import Collection, MutableMapping
from functools import cached_property
from typing import Any, NamedTuple

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_netrc_auth
from urllib3.util.retry import Retry

from remote_lab import __version__
from remote_lab.client.address import Address, Auth
from remote_lab.client.errors import refusal, short_ids
from remote_lab.client.unreachable import NO_ANSWER, unreachable

_log = logging.getLogger("remote_lab.client")


def _shorten_ids(record: logging.LogRecord) -> bool:
    record.msg, record.args = short_ids(record.getMessage()), ()
    return True


# urllib3 logs what it tries again, with the path and so the session id, as a warning.
logging.getLogger("urllib3.connectionpool").addFilter(_shorten_ids)

REPEATABLE_METHODS = ("GET", "HEAD", "OPTIONS", "DELETE")
RETRY_BACKOFF_FACTOR = 1.0

PAUSE_SECONDS_MIN = 0.05
"""No `Retry-After` makes a busy loop."""
PAUSE_SECONDS_MAX = 60.0
"""No `Retry-After` makes a waiting session go stale."""
FIRST_PAUSE_SECONDS = 0.25
"""Before asking a server again that did not answer; doubled each time it does not."""
LAST_PAUSE_SECONDS = 2.0
"""It is asked no less often than this: somebody restarts it, and people wait."""

INTERRUPTED_SECONDS = 5.0
"""How long somebody who pressed Ctrl-C waits for a server to take something back."""


class Surroundings(NamedTuple):
    """What `requests` finds outside of the program on the way to a server."""

    proxies: MutableMapping[str, str]
    verify: bool | str | None
    """Whether certificates are checked, or the file of those that are trusted."""
    auth: Auth | tuple[str, str] | None


def _surroundings(address: Address) -> Surroundings:
    found = requests.Session().merge_environment_settings(address.url, {}, None, None, None)
    return Surroundings(found["proxies"], found["verify"], address.auth or get_netrc_auth(address.url))


class Wire:
    """Requests to one server; each thread has its own, because a `requests.Session` promises nothing to two."""

    def __init__(
        self, address: Address, request_timeout_seconds: float, surroundings: Surroundings | None = None
    ) -> None:
        """Read the environment and ~/.netrc once, unless it was done: requests would do so anew for each call."""
        self.address = address
        self.request_timeout_seconds = request_timeout_seconds
        self._surroundings = surroundings or _surroundings(address)

    @cached_property
    def _http(self) -> requests.Session:
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
        return self._http_session(HTTPAdapter(max_retries=retries))

    @cached_property
    def _http_once(self) -> requests.Session:
        # `allowed_methods` lets a refused connection be tried again with any method, so POST goes another way.
        return self._http_session(HTTPAdapter())

    def sibling(self) -> Wire:
        """Return another one to the same server, for another thread."""
        return Wire(self.address, self.request_timeout_seconds, self._surroundings)

    def call(
        self,
        method: str,
        path: str,
        accept: Collection[int],
        *,
        once: bool = False,
        about_session: bool = False,
        **kwargs: Any,
    ) -> requests.Response:
        """Return the answer when its status is one of `accept`, else raise the `RemoteLabHTTPError` it stands for.

        `once`: a loop of the caller's own tries again. `about_session`: a 404 means that the session is gone.
        `kwargs` go to `requests`. `ServerUnreachableError` is raised when there is no answer.
        """
        kwargs.setdefault("timeout", self.request_timeout_seconds)
        http = self._http if method in REPEATABLE_METHODS and not once else self._http_once
        try:
            response = http.request(method, self.address.url + path, allow_redirects=False, **kwargs)
        except NO_ANSWER as error:
            raise unreachable(error, self.address.url, f"{method} {path}", kwargs["timeout"]) from error
        _log.debug("%s %s: %d", method, short_ids(path), response.status_code)
        if response.status_code not in accept:
            raise refusal(response, about_session=about_session)
        return response

    def close(self) -> None:
        """Let go of all connections; the next call would open new ones."""
        for name in ("_http", "_http_once"):
            if http := self.__dict__.pop(name, None):
                http.close()

    def _http_session(self, adapter: HTTPAdapter) -> requests.Session:
        http = requests.Session()
        http.mount("http://", adapter)
        http.mount("https://", adapter)
        http.proxies, http.verify, http.auth = self._surroundings
        http.trust_env = False
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


def backoff_seconds(failures: int, longest_seconds: float) -> float:
    """Return the pause after so many failures in a row (from 1), at most `longest_seconds`."""
    return min(longest_seconds, LAST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 16))


def is_final(error: requests.RequestException) -> bool:
    """Tell whether asking again is useless: the server has answered, and not that it is troubled; or it never can."""
    if error.response is not None:
        return error.response.status_code < 500 and error.response.status_code != 429
    lost = requests.ConnectionError | requests.Timeout | requests.exceptions.ChunkedEncodingError
    return not isinstance(error, lost)
