"""A session as this process has it: calls in its name, whether it is gone, and its end. What for is not known here."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Collection
from typing import Any

import requests

from remote_lab.client.errors import SessionGoneError
from remote_lab.client.folder import PrivateFolder
from remote_lab.client.opening import Opening
from remote_lab.client.upload import Upload
from remote_lab.client.wire import INTERRUPTED_SECONDS, Wire

_log = logging.getLogger("remote_lab.client")


class HeldSession:
    """A session that was opened here, or one of somebody else's that was joined; `end()` gives back only the former."""

    def __init__(self, wire: Wire, joined_id: str | None) -> None:
        self.wire = wire
        self.session_id = joined_id or ""
        self.is_own = joined_id is None
        self.folder = PrivateFolder()
        self.heartbeat: Heartbeat | None = None
        self._gone: SessionGoneError | None = None
        self._pid = os.getpid()

    @property
    def short_id(self) -> str:
        """Enough of the id to find it in a log; whoever knows all of it may use the session."""
        return self.session_id[:8]

    @property
    def gone(self) -> SessionGoneError | None:
        """Why the session has ended, once that is known."""
        return self._gone

    def open(self, introduction: dict[str, str], upload: Upload | None = None) -> int:
        """Enter the queue, with the lab that will be wanted; returns the position there.

        However this is interrupted, no session stays behind.
        """
        opening = Opening(self.wire, introduction, upload)
        try:
            self.session_id, position = opening.open()
        except BaseException:
            opening.give_up(min(self.wire.request_timeout_seconds, INTERRUPTED_SECONDS))
            self.session_id = ""
            raise
        return position

    def call(self, method: str, path: str, accept: Collection[int], **kwargs: Any) -> requests.Response:
        """Return the answer to a call in the session's name, see `Wire.call`.

        `SessionGoneError`, with the reason, also without asking once it is known that the session has ended.
        """
        self.check()
        headers = {"X-Session-ID": self.session_id, **kwargs.pop("headers", {})}
        try:
            return self.wire.call(method, path, accept, headers=headers, **kwargs)
        except SessionGoneError as error:
            self._gone = error
            raise

    def check(self) -> None:
        """Raise SessionGoneError once it is known that the session has ended, `RequestException` after `end()`."""
        if not self.session_id:
            raise requests.RequestException("This client is closed. Make a new RemoteLabClient.")
        if self._gone is not None:
            gone = self._gone
            raise SessionGoneError(str(gone), gone.response, code=gone.code, detail=gone.detail)

    def lose(self, error: SessionGoneError) -> None:
        """Note that the session is gone, as somebody found out who has nobody to tell but the log."""
        if self._gone is None:
            self._gone = error
            _log.error("Session %s is gone: %s", self.short_id, error)

    def end(self, timeout_seconds: float | None = None) -> None:
        """Give everything back: idempotent, never raises, a failure is logged as a warning."""
        if self.heartbeat is not None:
            self.heartbeat.stop()
            self.heartbeat = None
        self.folder.remove()
        if not self.session_id:
            return
        if self.is_own:
            try:
                path, accept = f"/session/{self.session_id}", (200, 202, 204, 404)
                self.wire.call("DELETE", path, accept, timeout=timeout_seconds or self.wire.request_timeout_seconds)
                _log.info("Session %s ended.", self.short_id)
            except requests.RequestException as error:
                _log.warning("Failed to close session %s, it ends when stale: %s", self.short_id, error)
        # Not reached when Ctrl-C ends the request: the end of the interpreter then tries again.
        self.session_id = ""
        self.wire.close()

    def end_unless_forked(self) -> None:
        """The same where it was opened: a child of that process has a copy, and no right to end what is not its own."""
        if os.getpid() == self._pid:
            self.end()


class Heartbeat:
    """A daemon thread that tells the server that a session lives, until it is stopped or the session is gone."""

    def __init__(self, held: HeldSession, interval_seconds: float) -> None:
        self._held = held
        self._wire = held.wire.sibling()
        self._session_id = held.session_id
        self._interval_seconds = interval_seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"remote-lab-heartbeat-{held.short_id}", daemon=True)

    def start(self) -> None:
        """Send the first heartbeat after one interval."""
        self._thread.start()

    def stop(self) -> None:
        """Send no more; one that is on its way is not waited for, it does no harm."""
        self._stopped.set()

    def _run(self) -> None:
        headers = {"X-Session-ID": self._session_id}
        while not self._stopped.wait(self._interval_seconds) and self._held.gone is None:
            try:
                self._wire.call("POST", "/session/heartbeat", (200, 204), headers=headers, about_session=True)
            except SessionGoneError as error:
                if not self._stopped.is_set():
                    self._held.lose(error)
                break
            except requests.RequestException as error:
                if not self._stopped.is_set():
                    _log.warning("Heartbeat of session %.8s failed, more follow: %s", self._session_id, error)
        self._wire.close()
