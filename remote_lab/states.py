"""Session and lab states and the transitions between them that are allowed."""

from __future__ import annotations

from enum import StrEnum


class SessionState(StrEnum):
    """Where a session is in its life; the first two are on the wire, an ended session is a 404."""

    WAITING = "waiting"
    """In the queue, behind others."""
    ACTIVE = "active"
    """Owns a slot and may boot a lab in it."""
    ENDED = "ended"
    """Gone: ended by its owner, or silent for too long. Kept as a row for the reason."""


class LabState(StrEnum):
    """Where a lab is in its life."""

    STARTING = "starting"
    """Claimed its slot; netlab is at work."""
    RUNNING = "running"
    """Up, its devices are on record."""
    STOPPING = "stopping"
    """Being torn down; still holds its slot."""
    STOPPED = "stopped"
    """Torn down: on purpose, or because it was found dead."""
    FAILED = "failed"
    """Never came up; what was left of it has been cleaned."""


LIVE_LAB_STATES = (LabState.STARTING, LabState.RUNNING, LabState.STOPPING)
"""A lab in one of these holds its slot; the database allows one per slot."""

SESSION_TRANSITIONS = {
    SessionState.WAITING: {SessionState.ACTIVE, SessionState.ENDED},
    SessionState.ACTIVE: {SessionState.ENDED},
    SessionState.ENDED: set[SessionState](),
}

LAB_TRANSITIONS = {
    LabState.STARTING: {LabState.RUNNING, LabState.STOPPING, LabState.FAILED},
    LabState.RUNNING: {LabState.STOPPING},
    LabState.STOPPING: {LabState.STOPPED},
    LabState.STOPPED: set[LabState](),
    LabState.FAILED: set[LabState](),
}
