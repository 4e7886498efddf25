"""`RemoteLabClient`: what a user does with a session and its lab. How each is done is its neighbours' matter."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import requests

from remote_lab.client import settings
from remote_lab.client.acquiring import Acquisition
from remote_lab.client.address import Address, address_of
from remote_lab.client.answers import (
    LabStatusDto,
    Standing,
    parse,
    read_device_state,
    read_devices,
    read_ended,
    read_lab_status,
    read_standing,
)
from remote_lab.client.devices import DeviceInfoDto, names_a_key
from remote_lab.client.inventory import file_name, write_inventory
from remote_lab.client.progress import Progress
from remote_lab.client.queueing import Turn
from remote_lab.client.session import Heartbeat, HeldSession
from remote_lab.client.upload import Upload, read_upload
from remote_lab.client.wire import Wire

_log = logging.getLogger("remote_lab.client")

HEARTBEAT_SECONDS = 60.0
POLL_SECONDS = 5.0
STATE_SECONDS = 120.0
"""How long devices may take to say how they are."""


class RemoteLabClient:
    """An exclusive session on a lab host; the constructor returns when it is this session's turn.

    A context manager: `with RemoteLabClient(url) as client:` ends the session, and with it the lab, on the way out. A
    client that is never closed gives its session back when it is garbage, or when the interpreter ends in order.

    Arguments that are not given are read from the environment; times are in seconds:

    - `base_url` (REMOTE_LAB_URL): the server's address; a user and a password in it are sent as Basic credentials.
    - `request_timeout` (REMOTE_LAB_REQUEST_TIMEOUT, 30): bounds a short request.
    - `session_timeout` (REMOTE_LAB_SESSION_TIMEOUT, 600): bounds the time in the queue.
    - `lab_acquisition_timeout` (REMOTE_LAB_ACQUISITION_TIMEOUT, 600): bounds one `acquire` with all it has to wait for.
    - `token` (REMOTE_LAB_TOKEN): sent as Bearer credentials.
    - `session_id` (REMOTE_LAB_SESSION_ID): join this session instead of opening one; `close()` leaves it open.
    - `purpose` (REMOTE_LAB_PURPOSE): what those who wait are told; by default `user@host: command`.
    - `ci_job` (REMOTE_LAB_CI_JOB): the id by which `end_ci_job` finds the session; by default that of the CI job of
      GitHub Actions, GitLab CI or Jenkins that this process belongs to.
    - `heartbeat`: the interval of the thread that keeps the session alive while a test says nothing; None: no thread.
    - `poll_seconds`: the interval between two looks, where the server holds no requests and names no time itself.
    - `topology`, `extra_files`: what will be acquired first, as `acquire` takes it. A server that has room boots it
      while the session waits; it is acquired all the same.
    - `live`: a terminal that shows how far things are as one line; they are logged in any case.

    Raises ValueError without a URL or with something unusable in arguments or environment, TimeoutError when the
    session is not active in time, `SessionGoneError` when it is ended while it waits, `RemoteLabHTTPError` when the
    server refuses it, `requests.RequestException` when the server cannot be reached to open one, and OSError when a
    file cannot be read. However the constructor fails, Ctrl-C included, the place in the queue is given back.
    """

    def __init__(
        self,
        base_url: str | None = None,
        request_timeout: float | None = None,
        session_timeout: float | None = None,
        lab_acquisition_timeout: float | None = None,
        *,
        token: str | None = None,
        session_id: str | None = None,
        purpose: str | None = None,
        ci_job: str | None = None,
        heartbeat: float | None = HEARTBEAT_SECONDS,
        poll_seconds: float = POLL_SECONDS,
        topology: Path | str | None = None,
        extra_files: Iterable[Path | str] = (),
        live: TextIO | None = None,
    ) -> None:
        address = _address(base_url, token)
        upload = None if topology is None else read_upload(Path(topology), extra_files)
        self.base_url = address.url
        self.request_timeout = settings.timeout_seconds(
            request_timeout, "REQUEST_TIMEOUT", settings.REQUEST_TIMEOUT_SECONDS
        )
        self.session_timeout = settings.timeout_seconds(
            session_timeout, "SESSION_TIMEOUT", settings.SESSION_TIMEOUT_SECONDS
        )
        self.lab_acquisition_timeout = settings.timeout_seconds(
            lab_acquisition_timeout, "ACQUISITION_TIMEOUT", settings.LAB_ACQUISITION_TIMEOUT_SECONDS
        )
        self.poll_seconds = poll_seconds
        self._progress = Progress(live)
        self._has_long_polls = False
        self._acquire_ids: list[str] = []
        self._held = HeldSession(Wire(address, self.request_timeout), settings.text(session_id, "SESSION_ID"))
        # The session must not keep the client alive, so it knows nothing of it.
        self._at_exit = weakref.finalize(self, self._held.end_unless_forked)
        try:
            self._enter(settings.introduction(purpose, settings.ci_job(ci_job)), upload)
            if heartbeat is not None:
                self._held.heartbeat = Heartbeat(self._held, heartbeat)
                self._held.heartbeat.start()
        except BaseException:
            self.close()
            raise
        finally:
            self._progress.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<RemoteLabClient {self.base_url} session {self._held.short_id or 'closed'}>"

    @property
    def session_id(self) -> str:
        """The session's id, "" when the client is closed. Whoever knows it may use the session."""
        return self._held.session_id

    @property
    def owns_session(self) -> bool:
        """Whether this client opened the session, and so ends it."""
        return self._held.is_own

    def acquire(self, topology: Path | str, reuse: bool, extra_files: Iterable[Path | str] = ()) -> list[DeviceInfoDto]:
        """Boot the lab of a topology, or share it when it runs already, and return its devices.

        `reuse` allows to share a running lab of the same files. `extra_files` are put beside the topology: with
        their relative folder when they lie below the topology's folder, under their bare name otherwise.

        Raises `LabAcquisitionTimeout` when the lab stays busy or is not up within `lab_acquisition_timeout` (a boot
        that nobody else waits for is then ended), `LabBootError` when it does not boot or is destroyed meanwhile,
        `SessionGoneError` when the session has ended, `RemoteLabHTTPError` on any other refusal, OSError when a file
        cannot be read. A server that is away for a while is waited for; one of neops-remote-lab that is, is a
        `requests.ConnectionError`.
        """
        acquisition = Acquisition(
            self._held,
            self._progress,
            read_upload(Path(topology), extra_files),
            reuse,
            timeout_seconds=self.lab_acquisition_timeout,
            poll_seconds=self.poll_seconds,
            has_long_polls=self._has_long_polls,
            references_before=len(self._acquire_ids),
        )
        devices = acquisition.run()
        self._acquire_ids.append(acquisition.acquire_id)
        return self._with_key(devices)

    def devices(self) -> list[DeviceInfoDto]:
        """Return the devices of the running lab; raise `RemoteLabHTTPError` (404, `lab_not_found`) without one."""
        return self._with_key(parse(self._call("GET", "/lab/devices", (200,)), read_devices))

    def status(self) -> LabStatusDto:
        """Return what the session's slot holds; without a lab `running` is False."""
        return parse(self._call("GET", "/lab", (200,)), read_lab_status)

    def log(self) -> str:
        """Return everything netlab printed while the lab booted, also when it failed.

        Raises `RemoteLabHTTPError` (404, `lab_not_found`) when the session has not booted any.
        """
        response = self._call("GET", "/lab/log", (200,))
        response.encoding = "utf-8"
        return response.text

    def device_state(self) -> list[dict[str, Any]]:
        """Return what each device says of itself: configuration and show commands, as the server collects them.

        `[{"name", "device", "outputs": [{"command", "output", "ok"}]}]`. Takes as long as it takes the devices to
        answer. Raises `RemoteLabHTTPError` (404, `lab_not_found`) without a running lab.
        """
        timeout = (self.request_timeout, max(self.request_timeout, STATE_SECONDS))
        return parse(self._call("GET", "/lab/state", (200,), timeout=timeout), read_device_state)

    def waiting(self) -> int | None:
        """Return how many sessions wait for their turn; None when the server does not say."""
        return self._standing().waiting

    def lease_expires_at(self) -> datetime | None:
        """Return when the session ends at the latest, by the server's clock; None when it may go on."""
        return self._standing().lease_expires_at

    def extend(self, seconds: float) -> None:
        """Let the session go on for so many seconds from now; `RemoteLabHTTPError` (422) beyond the server's limit."""
        self._call("POST", f"/session/{self.session_id}/extend", (200,), json={"lease_seconds": seconds})

    def inventory(self, kind: str, path: Path | str | None = None) -> Path:
        """Write the devices of the running lab as the file that a tool reads, and return where it is.

        `kind` is one of `remote_lab.client.inventory.KINDS`: ansible, nornir, ssh_config, pyats; ValueError for any
        other. Without a `path` the file lies in a private folder, which goes with the client.
        """
        target = Path(path) if path is not None else self._held.folder.path / file_name(kind)
        write_inventory(kind, self.devices(), target)
        return target

    def release(self) -> None:
        """Give one reference to the lab back; never raises, a failure is logged at ERROR."""
        headers = {"X-Acquire-ID": self._acquire_ids.pop()} if self._acquire_ids else {}
        self._give_back("release", "POST", "/lab/release", headers=headers)

    def destroy(self, force: bool = True) -> None:
        """Tear the lab down, with `force` also while it is referenced; never raises, a failure is logged at ERROR."""
        if self._give_back("destroy", "DELETE", "/lab", params={"force": "true" if force else "false"}):
            self._acquire_ids.clear()

    def close(self) -> None:
        """End the session and its lab, or leave it to its owner if it was joined.

        Idempotent, never raises, a failure is logged as a warning.
        """
        self._held.end()
        self._acquire_ids.clear()

    @staticmethod
    def end_ci_job(
        base_url: str | None, ci_job: str, *, token: str | None = None, request_timeout: float | None = None
    ) -> int:
        """End every session that a CI job opened, by its id or its URL; returns how many there were, 0 is no error.

        Arguments that are None are read from the environment, as in the constructor. Raises ValueError and
        `requests.RequestException` like the constructor.
        """
        seconds = settings.timeout_seconds(request_timeout, "REQUEST_TIMEOUT", settings.REQUEST_TIMEOUT_SECONDS)
        wire = Wire(_address(base_url, token), seconds)
        try:
            return parse(wire.call("DELETE", "/session", (200,), params={"ci_job": ci_job}), read_ended)
        finally:
            wire.close()

    def _standing(self) -> Standing:
        return parse(self._call("GET", f"/session/{self.session_id}", (200,), about_session=True), read_standing)

    def _enter(self, introduction: dict[str, str], upload: Upload | None) -> None:
        """Enter the queue and wait for the turn."""
        if self._held.is_own:
            position = self._held.open(introduction, upload)
            self._progress.say(f"Session {self._held.short_id} at {self.base_url}, position {position}.")
        standing = Turn(self._held, self._progress, self.session_timeout, self.poll_seconds).wait()
        self._has_long_polls = standing.has_long_polls

    def _with_key(self, devices: list[DeviceInfoDto]) -> list[DeviceInfoDto]:
        """Return the devices with the file of the lab's login key, if one of them names a key as its way in."""
        if not self._has_long_polls or not any(map(names_a_key, devices)):
            return devices
        try:
            key = self._call("GET", "/lab/ssh-key", (200, 404))
            if key.status_code == 404:
                return devices
            key_file = self._held.folder.keep_key(key.text)
        except (requests.RequestException, OSError) as error:
            # The lab is there, and may not be lost because of this.
            _log.warning("The lab's ssh key cannot be had, devices have no key_file: %s", error)
            return devices
        return [replace(device, key_file=key_file) for device in devices]

    def _call(self, method: str, path: str, accept: Collection[int], **kwargs: Any) -> requests.Response:
        return self._held.call(method, path, accept, **kwargs)

    def _give_back(self, verb: str, method: str, path: str, **kwargs: Any) -> bool:
        if not self.session_id:
            _log.debug("No lab to %s: the client is closed, its lab went with the session.", verb)
            return False
        try:
            self._call(method, path, (202, 204, 404), **kwargs)
        except requests.RequestException as error:
            _log.error("Failed to %s lab: %s", verb, error)
            return False
        _log.info("Lab %sed.", verb.removesuffix("e"))
        return True


def _address(base_url: str | None, token: str | None) -> Address:
    url = settings.text(base_url or None, "URL")
    if url is None:
        raise ValueError("No server: pass base_url or set REMOTE_LAB_URL, for example to http://lab-host:8000.")
    return address_of(url, settings.text(token, "TOKEN"))
