"""What the server answers, as frozen values, and how they are read from its JSON. No request is made here.

Unknown keys are ignored: the server may add some.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import requests

from remote_lab.client.errors import RemoteLabHTTPError, without_user_info

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class DeviceInfoDto:
    """A device of a running lab."""

    name: str
    """The node's name in the topology."""
    raw: dict[str, Any]
    """The node as `netlab inspect --node NAME` prints it."""


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


def parse(response: requests.Response, read: Callable[[Any], Answer]) -> Answer:
    """Return what `read` makes of the JSON; raise `RemoteLabHTTPError` when no Remote Lab Manager can have sent it."""
    try:
        return read(response.json())
    except (ValueError, KeyError, TypeError) as error:
        detail = "this is not the answer of a Remote Lab Manager. Check the URL."
        request = f"{response.request.method} {without_user_info(response.url)}"
        raise RemoteLabHTTPError(f"{request}: {detail}", response, detail=detail) from error


def read_new_session(body: dict[str, Any]) -> tuple[str, int]:
    """Return the id and the position of `{session_id, position}`."""
    return str(body["session_id"]), int(body["position"])


def read_standing(body: dict[str, Any]) -> tuple[str, int]:
    """Return the status and the position of `{status, position}`."""
    return str(body["status"]), int(body["position"])


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
    )
