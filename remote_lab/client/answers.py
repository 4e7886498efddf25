"""What the server answers, as frozen values, and how they are read from its JSON. No request is made here.

Unknown keys are ignored: the server may add some.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import requests

from remote_lab.client.devices import DeviceInfoDto
from remote_lab.client.errors import RemoteLabHTTPError, request_line

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class LabStatusDto:
    """What the session's slot holds, whether or not a lab runs in it."""

    running: bool
    """True while a lab is up."""
    topology: str | None
    """Name of its topology file; None without a lab."""
    ref_count: int
    """How often it has been acquired and not yet released."""
    devices: list[DeviceInfoDto]
    """Empty without a lab."""
    netlab_status: str | None
    """What `netlab status` says about it, for people to read; None without a lab."""
    state: str | None = None
    """starting, running, stopping; failed until the next boot; None without a lab. This one and those below are told
    by a Remote Lab Manager only, not by a neops-remote-lab."""
    identity: str | None = None
    """SHA-256 of what was uploaded, see `remote_lab.identity`."""
    phase: str | None = None
    """The step of the boot that is under way or failed."""
    seconds: float | None = None
    """Since the boot of a starting lab began."""
    eta_seconds: float | None = None
    """Until a starting lab runs; None when it was never measured."""
    ready: tuple[str, ...] = ()
    """The devices that are up so far."""
    failure: str | None = None
    """Why the boot failed."""
    log_tail: str | None = None
    """The end of the boot log of a lab that is starting or failed."""


@dataclass(frozen=True)
class Standing:
    """Where a session is in the queue."""

    status: str
    position: int
    """Everybody in front of it, from 0."""
    eta_seconds: float | None
    """Until its turn, when that is known."""
    held_by: str
    """Who is active, for people to read; "" when the server does not say."""
    waiting: int | None
    """How many sessions wait; None when the server does not say."""
    lease_expires_at: datetime | None
    """When the session ends at the latest; None when it may go on."""
    has_long_polls: bool
    """Whether the server is one that holds requests with `wait` and answers 202 to who prefers that."""


def parse(response: requests.Response, read: Callable[[Any], Answer]) -> Answer:
    """Return what `read` makes of the JSON; raise `RemoteLabHTTPError` when no Remote Lab Manager can have sent it."""
    try:
        return read(response.json())
    except (ValueError, KeyError, TypeError) as error:
        detail = "this is not the answer of a Remote Lab Manager. Check the URL."
        raise RemoteLabHTTPError(f"{request_line(response)}: {detail}", response, detail=detail) from error


def read_new_session(body: dict[str, Any]) -> tuple[str, int]:
    """Return the id and the position of `{session_id, position}`."""
    return str(body["session_id"]), int(body["position"])


def read_standing(body: dict[str, Any]) -> Standing:
    """Return where a session is, from `{status, position}` and what a Remote Lab Manager adds to it."""
    eta_seconds, waiting = body.get("eta_seconds"), body.get("waiting")
    lease_expires_at = body.get("lease_expires_at")
    return Standing(
        status=str(body["status"]),
        position=int(body["position"]),
        eta_seconds=None if eta_seconds is None else float(eta_seconds),
        held_by=", ".join(_holder(holder) for holder in body.get("held_by") or []),
        waiting=None if waiting is None else int(waiting),
        lease_expires_at=None if lease_expires_at is None else datetime.fromisoformat(lease_expires_at),
        has_long_polls="eta_seconds" in body,
    )


def _holder(holder: dict[str, Any]) -> str:
    job = holder.get("ci_job_url") or holder.get("ci_job_id") or holder.get("token")
    purpose = str(holder.get("purpose") or "somebody who gave no purpose")
    return f"{purpose} ({job})" if job else purpose


def read_devices(body: list[dict[str, Any]]) -> list[DeviceInfoDto]:
    """Return the devices of `[{name, raw}]`."""
    return [DeviceInfoDto(name=device["name"], raw=device["raw"]) for device in body]


def read_acquired(body: dict[str, Any]) -> list[DeviceInfoDto]:
    """Return the devices of `{reused, devices}`."""
    return read_devices(body["devices"])


def read_lab_status(body: dict[str, Any]) -> LabStatusDto:
    """Return `{running, topology, ref_count, devices, netlab_status}`; what needs a lab may be missing or null."""
    return LabStatusDto(
        running=bool(body["running"]),
        topology=body.get("topology"),
        ref_count=int(body["ref_count"]),
        devices=read_devices(body.get("devices") or []),
        netlab_status=body.get("netlab_status"),
        state=body.get("state"),
        identity=body.get("identity"),
        phase=body.get("phase"),
        seconds=body.get("seconds"),
        eta_seconds=body.get("eta_seconds"),
        ready=tuple(map(str, body.get("ready") or ())),
        failure=body.get("failure"),
        log_tail=body.get("log_tail"),
    )


def read_device_state(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the devices of `{devices: [{name, device, outputs}]}`."""
    return list(body["devices"])


def read_ended(body: dict[str, Any]) -> int:
    """Return the number of `{ended}`."""
    return int(body["ended"])
