"""The tables and their named constraints; no queries and no rules live here.

`sessions` is the queue, `labs` what was booted for whom in which slot, `lab_references` who uses a lab. The partial
unique indexes say no if the code is wrong: one active session and one live lab in a slot.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, DateTime, Dialect, ForeignKey, Index, MetaData, String, Text, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from remote_lab.states import LIVE_LAB_STATES, LabState, SessionState

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


def _one_of(column: str, values: Any) -> str:
    listed = ", ".join(f"'{value}'" for value in values)
    return f"{column} IN ({listed})"


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC moment; SQLite keeps it without its zone."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {datetime: UtcDateTime()}


class Session(Base):
    """A place in the queue."""

    __tablename__ = "sessions"
    __table_args__ = (
        CheckConstraint(_one_of("state", SessionState), name="state"),
        CheckConstraint("state != 'active' OR slot IS NOT NULL", name="active_has_slot"),
        Index("uq_sessions_active_slot", "slot", unique=True, sqlite_where=text("state = 'active'")),
        Index("ix_sessions_state_ticket", "state", "ticket"),
        Index("ix_sessions_ci_job_id", "ci_job_id"),
        {"sqlite_autoincrement": True},
    )

    ticket: Mapped[int] = mapped_column(primary_key=True)
    """The order of the queue; never given twice."""
    id: Mapped[str] = mapped_column(String(36), unique=True)
    """The uuid4 that the owner knows."""
    state: Mapped[str] = mapped_column(String(16))
    slot: Mapped[int | None]
    """The slot it has, or had when it ended; from 1."""
    purpose: Mapped[str | None] = mapped_column(Text)
    """What its owner says it is for."""
    ci_job_url: Mapped[str | None] = mapped_column(Text)
    """The CI job that its owner says it is."""
    ci_job_id: Mapped[str | None] = mapped_column(Text)
    """What the CI system calls that job, so that its clean-up step can name it."""
    lease_seconds: Mapped[float | None]
    """How long it may be active, as its owner wanted it; None: as long as the server allows."""
    lease_expires_at: Mapped[datetime | None]
    """When an active one ends, whatever happens; None: never."""
    created_at: Mapped[datetime]
    activated_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None] = mapped_column(Text)
    """Why it ended, as a clause for the owner."""


class Lab(Base):
    """A lab that was booted, or is about to be."""

    __tablename__ = "labs"
    __table_args__ = (
        CheckConstraint(_one_of("state", LabState), name="state"),
        Index("uq_labs_live_slot", "slot", unique=True, sqlite_where=text(_one_of("state", LIVE_LAB_STATES))),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    """A uuid4; names its workspace and its pod."""
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"), index=True)
    """The session that booted it."""
    slot: Mapped[int]
    identity: Mapped[str] = mapped_column(String(64))
    """SHA-256 of what was uploaded, see `remote_lab.identity`."""
    topology: Mapped[str] = mapped_column(Text)
    """The topology's file name as uploaded."""
    state: Mapped[str] = mapped_column(String(16))
    devices: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON(none_as_null=True))
    """`[{name, raw}]` in netlab's order, once it runs."""
    phase: Mapped[str | None] = mapped_column(String(32))
    """The step in which its boot failed."""
    failure: Mapped[str | None] = mapped_column(Text)
    """What went wrong in its boot, life or teardown."""
    created_at: Mapped[datetime]
    running_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class LabReference(Base):
    """One use of a lab by a session; a lab's reference count is the number of these rows."""

    __tablename__ = "lab_references"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(primary_key=True)
    lab_id: Mapped[str] = mapped_column(ForeignKey("labs.id"), index=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"), index=True)
    acquire_id: Mapped[str | None] = mapped_column(String(128))
    """What its user calls it; asked for again by that name it is the same reference."""
    created_at: Mapped[datetime]
