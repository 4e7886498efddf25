"""What the use cases answer: plain values, as the wire shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Devices = list[dict[str, Any]]


@dataclass(frozen=True)
class SessionView:
    """A session as its owner sees it; `position` counts everybody in front of it."""

    session_id: str
    status: str
    position: int


@dataclass(frozen=True)
class LabView:
    """The lab of a session; `netlab_status` is what netlab says of it, None when there is none."""

    running: bool
    topology: str | None
    ref_count: int
    devices: Devices
    netlab_status: str | None


@dataclass(frozen=True)
class HealthView:
    """What the server is doing; `timestamp` in seconds since the epoch, `uptime` in seconds."""

    status: str
    timestamp: float
    uptime: float
    sessions: int
    queue_length: int


@dataclass(frozen=True)
class Acquired:
    """The devices of an acquired lab, and whether it was there before."""

    reused: bool
    devices: Devices
