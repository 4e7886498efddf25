"""One acquire, from the upload to the devices: tries, the wait for the boot, and giving back what nobody waits for.

The procedure, all of it under one deadline:

1. `POST /lab` with `Prefer: respond-async, wait=1` and an acquire id. 200 has the devices, also of a lab that is up
   within that second. 423 and 503 were not executed and are tried again. A server that offers no long polls
   (neops-remote-lab 1.4.0) takes no notice of the two headers and answers when the lab is up.
2. After 202, `GET /lab?wait=` until our lab, known by its identity, runs or has failed.
3. When it runs, 1. again: the same acquire id takes no second reference, and the answer has the devices. The same when
   nothing is left of it, as after a restart of the server in the middle of the boot, and when an answer got lost.

So the only thing that counts is the answer to `POST /lab`, and it can be asked for as often as the network likes.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import requests

from remote_lab.client.answers import LabStatusDto, parse, read_acquired, read_lab_status
from remote_lab.client.devices import DeviceInfoDto
from remote_lab.client.errors import (
    LabAcquisitionTimeout,
    LabBootError,
    RemoteLabHTTPError,
    SessionGoneError,
    log_section,
)
from remote_lab.client.progress import Progress
from remote_lab.client.session import HeldSession
from remote_lab.client.upload import Upload
from remote_lab.client.wire import INTERRUPTED_SECONDS, PAUSE_SECONDS_MIN, backoff_seconds, is_final, pause_seconds
from remote_lab.durations import about
from remote_lab.states import LabState

POST_HOLD_SECONDS = 1
PREFER_HELD = f"respond-async, wait={POST_HOLD_SECONDS}"
HOLD_SECONDS = 10.0
LIVE_HOLD_SECONDS = 1.0
LOG_SECONDS = 10.0
UNHELD_SECONDS = 0.2
EMPTY_SECONDS = 2.0
"""How long there may be no lab between the end of the one before and the beginning of ours."""

PHASES = {
    "pod": "making its sandbox",
    "create": "netlab create",
    "start": "starting devices",
    "config": "configuring devices",
    "devices": "listing devices",
}
"""What people are told of `phase`."""


class Acquisition:
    """One acquire; `run()` it once."""

    def __init__(
        self,
        held: HeldSession,
        progress: Progress,
        upload: Upload,
        reuse: bool,
        *,
        timeout_seconds: float,
        poll_seconds: float,
        has_long_polls: bool,
        references_before: int,
    ) -> None:
        """`references_before`: how many references to a lab this client holds already."""
        self.acquire_id = str(uuid.uuid4())
        self._held = held
        self._progress = progress
        self._upload = upload
        self._identity = upload.identity
        self._reuse = reuse
        self._timeout_seconds = timeout_seconds
        self._poll_seconds = poll_seconds
        self._is_async = has_long_polls
        self._references_before = references_before
        self._began = time.monotonic()
        self._deadline = self._began + timeout_seconds
        self._standing = "the server has not answered"
        self._may_hold = False
        """Whether the server may have given us a reference, or be about to."""
        self._failures = 0

    def run(self) -> list[DeviceInfoDto]:
        """Return the devices when the lab is up; for what is raised see `RemoteLabClient.acquire`."""
        self._held.check()
        name = self._upload.topology
        self._progress.say(f"acquiring {name} (reuse={self._reuse})")
        try:
            devices = self._obtain()
        except (LabBootError, SessionGoneError):
            raise
        except Exception:
            self._give_back(self._held.wire.request_timeout_seconds)
            raise
        except BaseException:
            self._give_back(min(self._held.wire.request_timeout_seconds, INTERRUPTED_SECONDS))
            raise
        finally:
            self._progress.clear()
        took = about(time.monotonic() - self._began)
        self._progress.say(f"lab {name} is up after {took}: {', '.join(device.name for device in devices)}")
        self._progress.clear()
        return devices

    def _obtain(self) -> list[DeviceInfoDto]:
        while True:
            try:
                response = self._post()
            except requests.RequestException as error:
                if (devices := self._after_failed_post(error)) is not None:
                    return devices
            else:
                self._failures = 0
                if response.status_code == 200:
                    return parse(response, read_acquired)
                self._follow(response)

    def _post(self) -> requests.Response:
        remaining = max(self._deadline - time.monotonic(), PAUSE_SECONDS_MIN)
        connect = min(self._held.wire.request_timeout_seconds, remaining)
        # Held for a second, a call is spared two more where a lab is up by then. Not at the end, nor on a shaky line.
        prefer = "respond-async" if connect <= POST_HOLD_SECONDS or self._failures else PREFER_HELD
        held_before, self._may_hold = self._may_hold, True
        try:
            return self._held.call(
                "POST",
                "/lab",
                (200, 202) if self._is_async else (200,),
                files=self._upload.parts,
                data={"reuse": "true" if self._reuse else "false"},
                headers={"Prefer": prefer, "X-Acquire-ID": self.acquire_id},
                timeout=(connect, connect if self._is_async else remaining),
            )
        except RemoteLabHTTPError as error:
            # What a proxy says, 502 or 504, says nothing about the server behind it.
            if error.response.status_code not in (502, 504):
                self._may_hold = held_before
            raise

    def _after_failed_post(self, error: requests.RequestException) -> list[DeviceInfoDto] | None:
        """Pause before the next try; raise what no try can change. Devices, when a lost answer was one with devices."""
        status = None if error.response is None else error.response.status_code
        if status in (423, 503) and isinstance(error, RemoteLabHTTPError):
            self._standing = str(error.detail)
            pause = pause_seconds(error.response, self._poll_seconds)
            line = f"{self._upload.topology} has to wait, next try in {about(pause)}: {error.detail}"
            self._progress.state(line, error.detail, 3 * LOG_SECONDS)
            self._pause(pause, error)
            return None
        if not self._is_async:
            if isinstance(error.__cause__, requests.ReadTimeout):
                self._standing = "it is still booting"
                raise self._too_late() from error
            if status is None and (devices := self._devices_of_a_lost_answer()) is not None:
                return devices
            raise error
        if status not in (None, 502, 504) or (status is None and is_final(error)):
            raise error
        self._pause_for_contact(error)
        return None

    def _follow(self, accepted: requests.Response | None) -> None:
        """Wait until asking for the lab again makes sense: it runs, or nothing comes of it any more.

        `accepted` is the answer that it is on its way, which has the same shape as what `GET /lab` says.

        LabBootError when it failed or was ended, `LabAcquisitionTimeout`, SessionGoneError.
        """
        was_seen = lost_contact = False
        before: LabStatusDto | None = None
        empty_since: float | None = None
        while True:
            began = time.monotonic()
            try:
                # After an outage the server may be a new one, where nothing is on its way that could be waited for.
                hold = LIVE_HOLD_SECONDS if self._progress.is_live or lost_contact else HOLD_SECONDS
                if self._failures:
                    hold = PAUSE_SECONDS_MIN
                response, accepted = accepted or self._look(hold), None
                lab = parse(response, read_lab_status)
            except requests.RequestException as error:
                if is_final(error):
                    raise
                lost_contact = True
                self._pause_for_contact(error)
                continue
            self._failures = 0
            is_ours = lab.identity == self._identity
            if lab.state == LabState.FAILED and is_ours and lab.phase is not None:
                raise self._boot_error(lab, response)
            if lab.state == LabState.FAILED:
                # Without a phase it did not fail by itself: the server ended it, because it is ended itself.
                self._pause(min(1.0, self._poll_seconds))
                return
            if lab.state == LabState.RUNNING or (lab.state == LabState.STARTING and not is_ours):
                return
            if lab.state == LabState.STARTING:
                was_seen, lost_contact = True, False
            if lab.state != LabState.STARTING and was_seen and not lost_contact:
                raise self._cancelled(response)
            if lab.state is None:
                empty_since = empty_since or began
                if lost_contact or time.monotonic() - empty_since > EMPTY_SECONDS:
                    return
            self._tell(lab)
            # A server that is about to end lets everybody go at once.
            was_held = time.monotonic() - began >= UNHELD_SECONDS or lab != before
            before = lab
            self._pause(pause_seconds(response, 0.0 if was_held else UNHELD_SECONDS))

    def _look(self, hold_seconds: float) -> requests.Response:
        hold = max(PAUSE_SECONDS_MIN, min(hold_seconds, self._deadline - time.monotonic()))
        request_seconds = self._held.wire.request_timeout_seconds
        return self._held.call(
            "GET",
            "/lab",
            (200,),
            once=True,
            params={"wait": f"{hold:.3f}"},
            timeout=(request_seconds, hold + request_seconds),
        )

    def _tell(self, lab: LabStatusDto) -> None:
        """Say how far it is."""
        if lab.state is None:
            self._standing = "nothing has come of it yet"
            return
        if lab.state == LabState.STOPPING:
            before = lab.topology or "the lab of the session before"
            self._standing = f"{before} is still on its way down"
            self._progress.state(f"waiting until {before} is down", ("down", before), LOG_SECONDS)
            return
        self._standing = "it is still booting"
        phase = "claimed" if lab.phase is None else PHASES.get(lab.phase, lab.phase)
        seconds = time.monotonic() - self._began if lab.seconds is None else lab.seconds
        line = f"booting {self._upload.topology}: {phase}, {about(seconds)}"
        if lab.ready:
            line += f", {' '.join(lab.ready)} ready"
        if lab.eta_seconds is not None and lab.eta_seconds >= 1:
            line += f", about {about(lab.eta_seconds)} to go"
        self._progress.state(line, lab.phase, LOG_SECONDS)

    def _pause_for_contact(self, error: requests.RequestException) -> None:
        self._failures += 1
        self._standing = f"the server does not answer ({error})"
        if self._failures == 1:
            self._progress.warn(
                f"Lost contact about {self._upload.topology}, asking again until the server is back: {error}"
            )
        self._pause(pause_seconds(error.response, backoff_seconds(self._failures, self._poll_seconds)), error)

    def _pause(self, seconds: float, error: requests.RequestException | None = None) -> None:
        # A try at the very end could only start a boot that nobody waits for.
        if time.monotonic() + seconds >= self._deadline:
            raise self._too_late() from error
        time.sleep(seconds)

    def _devices_of_a_lost_answer(self) -> list[DeviceInfoDto] | None:
        """Where an acquire has no name, its lab tells: it runs, by that file name, with more references than before."""
        try:
            lab = parse(self._held.call("GET", "/lab", (200,)), read_lab_status)
        except requests.RequestException:
            return None
        is_ours = lab.running and lab.topology is not None and Path(lab.topology).name == self._upload.topology
        return lab.devices if is_ours and lab.ref_count > self._references_before else None

    def _give_back(self, timeout_seconds: float) -> None:
        """Let go of the reference, and of a boot that nobody else waits for."""
        if not self._may_hold or not self._held.session_id:
            return
        try:
            if self._is_async:
                self._held.call(
                    "POST",
                    "/lab/release",
                    (204, 404),
                    headers={"X-Acquire-ID": self.acquire_id},
                    timeout=timeout_seconds,
                )
            if self._is_async or not self._references_before:
                force = "false" if self._is_async else "true"
                accept = (202, 204, 404, 409)
                self._held.call("DELETE", "/lab", accept, once=True, params={"force": force}, timeout=timeout_seconds)
        except requests.RequestException as error:
            self._progress.warn(f"Failed to give {self._upload.topology} back, it goes with the session: {error}")

    @property
    def _request_line(self) -> str:
        return f"POST {self._held.wire.address.url}/lab"

    def _boot_error(self, lab: LabStatusDto, response: requests.Response) -> LabBootError:
        code, detail, log_tail = "lab_boot_failed", lab.failure or "The lab did not boot.", lab.log_tail or ""
        message = f"{self._request_line}: {code}: {detail}{log_section(log_tail)}"
        return LabBootError(message, response, code=code, detail=detail, phase=lab.phase or "", log_tail=log_tail)

    def _cancelled(self, response: requests.Response) -> LabBootError:
        code = "lab_boot_cancelled"
        detail = f"The boot of {self._upload.topology} was ended: somebody destroyed the lab while it was booting."
        return LabBootError(f"{self._request_line}: {code}: {detail}", response, code=code, detail=detail)

    def _too_late(self) -> LabAcquisitionTimeout:
        return LabAcquisitionTimeout(
            f"Lab {self._upload.topology} could not be had within {self._timeout_seconds:g} s: "
            f"{self._standing.rstrip('.')}. "
            "Raise lab_acquisition_timeout or REMOTE_LAB_ACQUISITION_TIMEOUT to wait longer."
        )
