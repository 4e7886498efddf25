"""`RemoteLabClient`: what a user does with a session and its lab. Connections and JSON are its neighbours' matter."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

from remote_lab.client.answers import (
    DeviceInfoDto,
    LabStatusDto,
    parse,
    read_acquired,
    read_devices,
    read_lab_status,
    read_new_session,
    read_standing,
)
from remote_lab.client.errors import LabAcquisitionTimeout, RemoteLabHTTPError, without_user_info
from remote_lab.client.wire import PAUSE_SECONDS_MIN, Heartbeat, Wire, pause_seconds
from remote_lab.states import SessionState

_log = logging.getLogger(__name__)

REQUEST_TIMEOUT_SECONDS = 30.0
SESSION_TIMEOUT_SECONDS = 600.0
LAB_ACQUISITION_TIMEOUT_SECONDS = 600.0
HEARTBEAT_SECONDS = 60.0
POLL_SECONDS = 5.0

UploadParts = list[tuple[str, tuple[str, bytes, str]]]
"""Of each file: the form field, then its name on the server, its bytes and its content type."""


class RemoteLabClient:
    """An exclusive session on a lab host; the constructor returns when it is this session's turn.

    A context manager: `with RemoteLabClient(url) as client:` ends the session, and with it the lab, on the way out.

    `base_url` is the server's address, `REMOTE_LAB_URL` when not given. `request_timeout` bounds a short request
    (30 s), `session_timeout` the time in the queue (600 s), `lab_acquisition_timeout` one `acquire` with all its
    retries (600 s); those not given are read from `REMOTE_LAB_REQUEST_TIMEOUT`, `REMOTE_LAB_SESSION_TIMEOUT` and
    `REMOTE_LAB_ACQUISITION_TIMEOUT`. `heartbeat_seconds` is the interval of the thread that keeps the session alive
    while a test says nothing; None starts none. `poll_seconds` is the interval between two looks at the queue or at
    a busy lab, where the server names none by `Retry-After`. All in seconds.

    Raises ValueError without a URL or with an unusable timeout in the environment, TimeoutError when the session is
    not active in time, `RemoteLabHTTPError` when the server refuses the session or ends it, and
    `requests.RequestException` when it cannot be reached to open one. However the constructor fails, Ctrl-C
    included, the place in the queue is given back.
    """

    def __init__(
        self,
        base_url: str | None = None,
        request_timeout: float | None = None,
        session_timeout: float | None = None,
        lab_acquisition_timeout: float | None = None,
        *,
        heartbeat_seconds: float | None = HEARTBEAT_SECONDS,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        url = base_url or os.environ.get("REMOTE_LAB_URL", "").strip()
        if not url:
            raise ValueError("No server: pass base_url or set REMOTE_LAB_URL, for example to http://lab-host:8000.")
        self.base_url = url.rstrip("/")
        self.request_timeout = _timeout_seconds(request_timeout, "REQUEST_TIMEOUT", REQUEST_TIMEOUT_SECONDS)
        self.session_timeout = _timeout_seconds(session_timeout, "SESSION_TIMEOUT", SESSION_TIMEOUT_SECONDS)
        self.lab_acquisition_timeout = _timeout_seconds(
            lab_acquisition_timeout, "ACQUISITION_TIMEOUT", LAB_ACQUISITION_TIMEOUT_SECONDS
        )
        self.poll_seconds = poll_seconds
        self.session_id = ""
        self._heartbeat: Heartbeat | None = None
        self._wire = Wire(self.base_url, self.request_timeout)
        try:
            self._open_session()
            self._wait_until_active()
            if heartbeat_seconds is not None:
                self._heartbeat = Heartbeat(self.base_url, self.request_timeout, self.session_id, heartbeat_seconds)
                self._heartbeat.start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def acquire(self, topology: Path | str, reuse: bool, extra_files: Iterable[Path | str] = ()) -> list[DeviceInfoDto]:
        """Boot the lab of a topology, or share it when it runs already, and return its devices.

        `reuse` allows to share a running lab of the same files. `extra_files` are put beside the topology: with
        their relative folder when they lie below the topology's folder, under their bare name otherwise.

        Raises `LabAcquisitionTimeout` when the lab stays busy or is not up within `lab_acquisition_timeout`,
        `LabBootError` when it does not boot, `RemoteLabHTTPError` on any other refusal, OSError when a file cannot
        be read or the server cannot be reached (`requests.ConnectionError`).
        """
        topology = Path(topology)
        parts = _upload_parts(topology, extra_files)
        deadline = time.monotonic() + self.lab_acquisition_timeout
        _log.info("Acquiring lab %s (reuse=%s).", topology.name, reuse)
        while True:
            remaining_seconds = max(deadline - time.monotonic(), PAUSE_SECONDS_MIN)
            try:
                devices = self._post_lab(parts, reuse, remaining_seconds)
            except requests.ReadTimeout as error:
                raise self._too_late(topology, "it is still booting") from error
            except RemoteLabHTTPError as error:
                if error.response.status_code != 423:
                    raise
                pause = pause_seconds(error.response, self.poll_seconds)
                # A try at the very end could only start a boot that nobody waits for.
                if time.monotonic() + pause >= deadline:
                    raise self._too_late(topology, str(error.detail)) from error
                _log.info("Lab %s is not free, next try in %.3g s: %s", topology.name, pause, error.detail)
            else:
                _log.info("Lab %s is up: %s.", topology.name, ", ".join(device.name for device in devices))
                return devices
            time.sleep(pause)

    def devices(self) -> list[DeviceInfoDto]:
        """Return the devices of the running lab; raise `RemoteLabHTTPError` (404, `lab_not_found`) without one."""
        return parse(self._call("GET", "/lab/devices", (200,)), read_devices)

    def status(self) -> LabStatusDto:
        """Return what the session's slot holds; without a lab `running` is False."""
        return parse(self._call("GET", "/lab", (200,)), read_lab_status)

    def release(self) -> None:
        """Give one reference to the lab back; never raises, a failure is logged at ERROR."""
        self._give_back("release", "POST", "/lab/release")

    def destroy(self, force: bool = True) -> None:
        """Tear the lab down, with `force` also while it is referenced; never raises, a failure is logged at ERROR."""
        self._give_back("destroy", "DELETE", "/lab", params={"force": _form_bool(force)})

    def close(self) -> None:
        """End the session and its lab; idempotent, never raises, a failure is logged as a warning."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None
        if not self.session_id:
            return
        try:
            self._wire.call("DELETE", f"/session/{self.session_id}", (200, 202, 204, 404))
            _log.info("Session %s ended.", self.session_id)
        except requests.RequestException as error:
            _log.warning("Failed to close session %s, it ends when stale: %s", self.session_id, error)
        finally:
            self.session_id = ""
            self._wire.close()

    def _open_session(self) -> None:
        response = self._wire.call("POST", "/session", (200, 201))
        self.session_id, position = parse(response, read_new_session)
        _log.info("Session %s at %s, position %d.", self.session_id, without_user_info(self.base_url), position)

    def _wait_until_active(self) -> None:
        """Look at the queue until it is this session's turn; a server that is away for a while is waited for."""
        deadline = time.monotonic() + self.session_timeout
        standing = "position unknown"
        trouble: requests.RequestException | None = None
        while True:
            try:
                response = self._wire.call("GET", f"/session/{self.session_id}", (200,))
                state, position = parse(response, read_standing)
            except requests.RequestException as error:
                if _is_final(error):
                    raise
                trouble, pause = error, pause_seconds(error.response, self.poll_seconds)
                _log.warning("Session %s: no word from the queue, asking again: %s", self.session_id, error)
            else:
                if state == SessionState.ACTIVE:
                    _log.info("Session %s is active.", self.session_id)
                    return
                trouble, pause = None, pause_seconds(response, self.poll_seconds)
                if standing != f"position {position}":
                    standing = f"position {position}"
                    _log.info("Session %s is waiting, %s.", self.session_id, standing)
            remaining_seconds = deadline - time.monotonic()
            if remaining_seconds <= 0:
                raise TimeoutError(
                    f"Session {self.session_id} did not become active within {self.session_timeout:g} s "
                    f"({trouble or standing}) and gives its place in the queue back. "
                    "Raise session_timeout or REMOTE_LAB_SESSION_TIMEOUT to wait longer."
                ) from trouble
            time.sleep(min(pause, remaining_seconds))

    def _post_lab(self, parts: UploadParts, reuse: bool, timeout_seconds: float) -> list[DeviceInfoDto]:
        """Send the whole upload and wait for the lab, at most `timeout_seconds` (requests.ReadTimeout)."""
        response = self._call(
            "POST",
            "/lab",
            (200,),
            files=parts,
            data={"reuse": _form_bool(reuse)},
            timeout=(min(self.request_timeout, timeout_seconds), timeout_seconds),
        )
        return parse(response, read_acquired)

    def _call(self, method: str, path: str, accept: Collection[int], **kwargs: Any) -> requests.Response:
        if not self.session_id:
            raise requests.RequestException(f"{method} {path}: this client is closed. Make a new RemoteLabClient.")
        return self._wire.call(method, path, accept, headers={"X-Session-ID": self.session_id}, **kwargs)

    def _give_back(self, verb: str, method: str, path: str, **kwargs: Any) -> None:
        if not self.session_id:
            _log.debug("No lab to %s: the client is closed, its lab went with the session.", verb)
            return
        try:
            self._call(method, path, (202, 204, 404), **kwargs)
        except requests.RequestException as error:
            _log.error("Failed to %s lab: %s", verb, error)
        else:
            _log.info("Lab %sed.", verb.removesuffix("e"))

    def _too_late(self, topology: Path, reason: str) -> LabAcquisitionTimeout:
        return LabAcquisitionTimeout(
            f"Lab {topology.name} could not be had within {self.lab_acquisition_timeout:g} s: {reason.rstrip('.')}. "
            "Raise lab_acquisition_timeout or REMOTE_LAB_ACQUISITION_TIMEOUT to wait longer."
        )


def _is_final(error: requests.RequestException) -> bool:
    """Tell whether asking the queue again is useless: the server has answered, and not that it is troubled."""
    status = None if error.response is None else error.response.status_code
    return status is not None and status != 429 and status < 500


def _form_bool(value: bool) -> str:
    return "true" if value else "false"


def _timeout_seconds(argument: float | None, name: str, default: float) -> float:
    """Return the argument, else `REMOTE_LAB_<name>`, else the default; raise ValueError for an unusable variable."""
    if argument is not None:
        return argument
    text = os.environ.get(f"REMOTE_LAB_{name}", "").strip()
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ValueError(f"REMOTE_LAB_{name}={text!r} cannot be used: expected a number of seconds above 0.")
    return seconds


def _upload_parts(topology: Path, extra_files: Iterable[Path | str]) -> UploadParts:
    """Read all files, once, so that every try of an upload sends the same bytes."""
    # Not resolved: a file keeps the name and the folder that its user gave it by a symbolic link.
    folder = Path(os.path.abspath(topology)).parent  # noqa: PTH100
    parts = [("topology", (topology.name, topology.read_bytes(), "application/x-yaml"))]
    for extra in map(Path, extra_files):
        place = Path(os.path.abspath(extra))  # noqa: PTH100
        name = place.relative_to(folder).as_posix() if place.is_relative_to(folder) else place.name
        parts.append(("extra_files", (name, extra.read_bytes(), "application/octet-stream")))
    return parts
