"""What the use cases answer: plain values, as the wire shows them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from remote_lab.netlab.device_state import DeviceState

Devices = list[dict[str, Any]]
DeviceStates = list[DeviceState]


@dataclass(frozen=True)
class Holder:
    """An active session as others see it: whose it is and what for, never its id."""

    slot: int
    token: str | None
    """The name of the token that it belongs to; None where the server runs open."""
    purpose: str | None
    ci_job_url: str | None
    """None unless whoever asks may know it."""
    active_since: datetime | None


@dataclass(frozen=True)
class QueuePlace:
    """A place in the queue as everybody sees it."""

    position: int
    status: str
    token: str | None
    """The name of the token that it belongs to; None where the server runs open."""
    purpose: str | None
    yours: bool
    """Whether it belongs to who asks."""


@dataclass(frozen=True)
class SessionView:
    """A session as its owner sees it."""

    session_id: str
    status: str
    position: int
    """Everybody in front of it, active ones included."""
    slot: int | None
    lease_expires_at: datetime | None
    eta_seconds: float | None
    """Until its turn, as far as can be known: 0 when active, None when nothing was measured yet."""
    held_by: list[Holder]
    """Who is active, for one that waits."""
    waiting: int
    """How many sessions wait, so that who holds a lab can yield."""
    retry_after_seconds: int | None = None
    """When asking again makes sense, for one that waits and was not held."""


@dataclass(frozen=True)
class LabView:
    """The lab of a session."""

    running: bool
    topology: str | None = None
    ref_count: int = 0
    devices: Devices = field(default_factory=list)
    netlab_status: str | None = None
    """What netlab says of a running lab."""
    state: str | None = None
    """starting, running, stopping; failed until the next boot; None when the session has no lab."""
    phase: str | None = None
    """The step of the boot that is under way or failed: pod, create, start, config, devices."""
    failure: str | None = None
    """Why the boot failed."""
    log_tail: str | None = None
    """The last lines of the boot log of a lab that is starting or failed."""
    eta_seconds: float | None = None
    """Until a starting lab runs, from earlier boots of the same; None when there were none."""
    seconds: float | None = None
    """Since the boot of a starting lab began."""
    identity: str | None = None
    """Its identity, by which whoever uploaded it knows its own lab."""
    ready: list[str] = field(default_factory=list)
    """The devices that are up; while the lab starts as far as its boot tells, all of them when it runs."""
    retry_after_seconds: int | None = None
    """When to ask again, because there was no room to hold the request."""


@dataclass(frozen=True)
class BootLog:
    """Where a lab's boot log is, and which lab that is."""

    lab_id: str
    path: Path


@dataclass(frozen=True)
class HealthView:
    """What the server is doing; `timestamp` in seconds since the epoch, `uptime` in seconds."""

    timestamp: float
    uptime: float
    sessions: int
    queue_length: int
    slots: int
    labs: list[dict[str, Any]]
    """`{slot, topology, state}` of every lab that is starting, running or stopping."""
    provider: str
    """The netlab provider whose labs run here."""


@dataclass(frozen=True)
class Acquired:
    """The devices of an acquired lab, and whether it was there before."""

    reused: bool
    devices: Devices
