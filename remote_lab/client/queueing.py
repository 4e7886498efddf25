"""Waiting for a session's turn: held requests where the server offers them, looks every few seconds where not."""

from __future__ import annotations

import time

import requests

from remote_lab.client.answers import Standing, parse, read_standing
from remote_lab.client.progress import Progress
from remote_lab.client.session import HeldSession
from remote_lab.client.wire import backoff_seconds, is_final, pause_seconds
from remote_lab.durations import about
from remote_lab.states import SessionState

HOLD_SECONDS = 25.0
"""Shorter than the timeouts of the usual proxies, and than what makes a session stale."""
LIVE_HOLD_SECONDS = 5.0
LOG_SECONDS = 30.0


class Turn:
    """The wait of one session, at most `timeout_seconds`."""

    def __init__(self, held: HeldSession, progress: Progress, timeout_seconds: float, poll_seconds: float) -> None:
        self._held = held
        self._progress = progress
        self._timeout_seconds = timeout_seconds
        self._poll_seconds = poll_seconds
        self._deadline = time.monotonic() + timeout_seconds
        self._place = "position unknown"
        self._has_long_polls = False
        self._failures = 0

    def wait(self) -> Standing:
        """Return when it is the session's turn; a server that is away for a while is waited for.

        TimeoutError when the time is over, `RemoteLabHTTPError` when the server says that waiting is useless.
        """
        while True:
            trouble: requests.RequestException | None = None
            began = time.monotonic()
            try:
                standing, response = self._look()
            except requests.RequestException as error:
                if is_final(error):
                    raise
                trouble, pause = error, self._pause_after(error)
            else:
                if standing.status == SessionState.ACTIVE:
                    self._progress.say(f"Session {self._held.short_id} is active.")
                    return standing
                pause = self._pause_after_waiting(standing, response, time.monotonic() - began)
                self._note(standing)
            remaining_seconds = self._deadline - time.monotonic()
            if remaining_seconds <= 0:
                raise self._too_late(trouble) from trouble
            time.sleep(min(pause, remaining_seconds))

    def _look(self) -> tuple[Standing, requests.Response]:
        hold = LIVE_HOLD_SECONDS if self._progress.is_live else HOLD_SECONDS
        hold = max(0.0, min(hold, self._deadline - time.monotonic())) if self._has_long_polls else 0.0
        request_seconds = self._held.wire.request_timeout_seconds
        response = self._held.call(
            "GET",
            f"/session/{self._held.session_id}",
            (200,),
            once=True,
            about_session=True,
            params={"wait": f"{hold:.3f}"} if hold else None,
            timeout=(request_seconds, hold + request_seconds),
        )
        standing = parse(response, read_standing)
        if self._failures:
            self._progress.say("The server answers again.")
        self._failures = 0
        return standing, response

    def _pause_after_waiting(self, standing: Standing, response: requests.Response, asked_seconds: float) -> float:
        """A held request is asked again at once, unless something between us and the server does not hold it."""
        if standing.has_long_polls and not self._has_long_polls:
            self._has_long_polls = True
            return 0.0
        was_held = asked_seconds >= min(1.0, self._poll_seconds) or self._place != f"position {standing.position}"
        return pause_seconds(response, 0.0 if self._has_long_polls and was_held else self._poll_seconds)

    def _pause_after(self, error: requests.RequestException) -> float:
        self._failures += 1
        if self._failures == 1:
            line = (
                f"Session {self._held.short_id}: no word from the queue, asking again until the server is back: {error}"
            )
            self._progress.warn(line)
        return pause_seconds(error.response, backoff_seconds(self._failures, self._poll_seconds))

    def _note(self, standing: Standing) -> None:
        self._place = f"position {standing.position}"
        line = self._place
        if standing.eta_seconds is not None:
            line += f", about {about(standing.eta_seconds)}" if standing.eta_seconds >= 1 else ", any moment"
        if standing.held_by:
            line += f", held by {standing.held_by}"
        self._progress.state(line, (standing.position, standing.held_by), LOG_SECONDS)

    def _too_late(self, trouble: requests.RequestException | None) -> TimeoutError:
        gives_back = " and gives its place in the queue back" if self._held.is_own else ""
        return TimeoutError(
            f"Session {self._held.short_id} did not become active within {self._timeout_seconds:g} s "
            f"({trouble or self._place}){gives_back}. "
            "Raise session_timeout or REMOTE_LAB_SESSION_TIMEOUT to wait longer."
        )
