"""Opening a session so that Ctrl-C cannot leave one behind whose id nobody knows."""

from __future__ import annotations

import logging
import threading
from http import HTTPStatus

import requests

from remote_lab.client.answers import parse, read_new_session
from remote_lab.client.errors import RemoteLabHTTPError
from remote_lab.client.upload import Upload
from remote_lab.client.wire import Wire

_log = logging.getLogger("remote_lab.client")

WITHOUT_THE_LAB = {*range(400, 500)} - {HTTPStatus.UNAUTHORIZED}
"""Answers after which a session is asked for as if it brought no lab: none was opened."""


class Opening:
    """`POST /session` on a thread of its own, where no interrupt can come between the answer and its being noted."""

    def __init__(self, wire: Wire, introduction: dict[str, str], upload: Upload | None = None) -> None:
        self._wire = wire.sibling()
        self._introduction = introduction
        self._upload = upload
        self._lock = threading.Lock()
        self._given_up = False
        self._session: tuple[str, int] | None = None
        self._error: BaseException | None = None
        self._is_begun = False
        # Not the thread's own join() and is_alive(): in Python 3.11 an interrupted join() takes the thread for ended.
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="remote-lab-opening", daemon=True)

    def open(self) -> tuple[str, int]:
        """Return the id and the position of the new session; `requests.RequestException` when there is none."""
        self._is_begun = True
        self._thread.start()
        self._is_done.wait()
        if self._error is not None:
            raise self._error
        if self._session is None:
            raise AssertionError("the request ended without an outcome")
        return self._session

    def give_up(self, seconds: float) -> None:
        """Give the session back: now when it is known, else when the server answers; that is waited for so long."""
        with self._lock:
            self._given_up = True
            session = self._session
        if session is not None:
            self._end(session[0])
        elif self._is_begun and not self._is_done.wait(seconds):
            _log.warning("The server has not said which session it opened; if it opened one, that ends when stale.")

    def _run(self) -> None:
        try:
            self._note_outcome()
        finally:
            self._is_done.set()

    def _note_outcome(self) -> None:
        try:
            session = parse(self._ask(), read_new_session)
        except BaseException as error:  # noqa: BLE001  whatever it is, it is raised in the thread that waits
            self._error = error
            return
        with self._lock:
            self._session = session
            given_up = self._given_up
        if given_up:
            self._end(session[0])

    def _ask(self) -> requests.Response:
        """With the lab where the server takes it. What it has against that it says when the lab is acquired."""
        if self._upload is not None:
            files, data = self._upload.parts, self._introduction
            try:
                return self._wire.call("POST", "/session", (200, 201), files=files, data=data)
            except RemoteLabHTTPError as error:
                if error.response.status_code not in WITHOUT_THE_LAB and error.code != "storage_full":
                    raise
                _log.debug("The session is opened without its lab: %s", error)
        return self._wire.call("POST", "/session", (200, 201), json=self._introduction)

    def _end(self, session_id: str) -> None:
        try:
            self._wire.call("DELETE", f"/session/{session_id}", (200, 202, 204, 404), once=True)
            _log.info("Session %.8s was opened and is given back.", session_id)
        except requests.RequestException as error:
            _log.warning("Failed to give session %.8s back, it ends when stale: %s", session_id, error)
        finally:
            self._wire.close()
