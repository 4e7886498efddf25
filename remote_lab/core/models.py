"""The tables and their named constraints; no queries and no rules live here.

`sessions` is the queue, `uploads` what came with them, `labs` what was booted for whom in which slot, `lab_references`
who uses a lab, `tokens` who may ask for all that, `history` who did. The partial unique indexes say no if the code is
wrong: one active session and one live lab in a slot.
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


class Token(Base):
    """Somebody who may call, known by what only they have."""

    __tablename__ = "tokens"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    """Never given twice, so that what is on record under it stays unambiguous."""
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    """Of the token itself, which is kept nowhere."""
    rights: Mapped[str] = mapped_column(String(64))
    """See `remote_lab.callers`, with blanks in between."""
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    """Not later than the last use, and at most about a minute before it."""
    revoked_at: Mapped[datetime | None]


class KeptUpload(Base):
    """A topology and its extra files that somebody brought with their session, by which a lab can be booted ahead."""

    __tablename__ = "uploads"
    __table_args__ = (Index("ix_uploads_identity", "identity"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    """A uuid4; names its folder."""
    token_id: Mapped[int | None] = mapped_column(ForeignKey("tokens.id"))
    """Whose it is; None: it was brought while the server ran open."""
    identity: Mapped[str] = mapped_column(String(64))
    """SHA-256 of it all, see `remote_lab.identity`."""
    topology: Mapped[str] = mapped_column(Text)
    """The topology's file name."""
    size_bytes: Mapped[int]
    used_at: Mapped[datetime]
    """When a session came with it last."""


class Session(Base):
    """A place in the queue."""

    __tablename__ = "sessions"
    __table_args__ = (
        CheckConstraint(_one_of("state", SessionState), name="state"),
        CheckConstraint("state != 'active' OR slot IS NOT NULL", name="active_has_slot"),
        Index("uq_sessions_active_slot", "slot", unique=True, sqlite_where=text("state = 'active'")),
        Index("ix_sessions_state_ticket", "state", "ticket"),
        Index("ix_sessions_ci_job_id", "ci_job_id"),
        Index("ix_sessions_token_id", "token_id"),
        Index("ix_sessions_upload_id", "upload_id"),
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
    token_id: Mapped[int | None] = mapped_column(ForeignKey("tokens.id"))
    """Whose it is; None: it was opened while the server ran open, and is everybody's as long as it does."""
    upload_id: Mapped[str | None] = mapped_column(ForeignKey("uploads.id"))
    """The lab that its owner said it will want, as far as that is kept."""
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
        Index("ix_labs_identity", "identity", "created_at"),
        Index("uq_labs_live_slot", "slot", unique=True, sqlite_where=text(_one_of("state", LIVE_LAB_STATES))),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    """A uuid4; names its workspace and its pod."""
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"), index=True)
    """The session that booted it, or that it is booted ahead for."""
    slot: Mapped[int]
    identity: Mapped[str] = mapped_column(String(64))
    """SHA-256 of what was uploaded, see `remote_lab.identity`."""
    topology: Mapped[str] = mapped_column(Text)
    """The topology's file name as uploaded."""
    state: Mapped[str] = mapped_column(String(16))
    is_unused: Mapped[bool] = mapped_column(default=False, server_default=text("0"))
    """Whether it was booted ahead and nobody has had a reference to it so far."""
    devices: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON(none_as_null=True))
    """`[{name, raw}]` in netlab's order, once it runs."""
    phase: Mapped[str | None] = mapped_column(String(32))
    """The step in which its boot failed."""
    failure: Mapped[str | None] = mapped_column(Text)
    """What went wrong in its boot, life or teardown."""
    created_at: Mapped[datetime]
    running_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class HistoryEntry(Base):
    """One lab that one session had, or a session that has had none; it outlives both, so it points at neither.

    No whole session id is in it, because whoever knows one may use it where the server runs open, and nothing else
    that opens anything.
    """

    __tablename__ = "history"
    __table_args__ = (
        Index("ix_history_ticket", "ticket"),
        Index("ix_history_lab_id", "lab_id"),
        Index("ix_history_ended_at", "ended_at"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    ticket: Mapped[int]
    """The session's ticket; a session that had several labs has several entries."""
    session: Mapped[str] = mapped_column(String(8))
    """The beginning of the session's id, as the log has it."""
    token: Mapped[str | None] = mapped_column(String(64))
    """The name of the token that opened it; None: the server ran open."""
    purpose: Mapped[str | None] = mapped_column(Text)
    ci_job_id: Mapped[str | None] = mapped_column(Text)
    ci_job_url: Mapped[str | None] = mapped_column(Text)
    """Without user, password and query."""
    opened_at: Mapped[datetime]
    activated_at: Mapped[datetime | None]
    slot: Mapped[int | None]
    """From 1."""
    lab_id: Mapped[str | None] = mapped_column(String(36))
    """None: it has had no lab. It also names the folder of its boot log."""
    topology: Mapped[str | None] = mapped_column(Text)
    """The topology's file name as uploaded."""
    identity: Mapped[str | None] = mapped_column(String(64))
    """SHA-256 of what was uploaded, see `remote_lab.identity`."""
    reused: Mapped[bool | None]
    """Whether the lab was up already, left warm by an earlier session."""
    acquired_at: Mapped[datetime | None]
    """When its boot began, or when it was taken over."""
    running_at: Mapped[datetime | None]
    """When the session could use it; None: it never could."""
    lab_ended_at: Mapped[datetime | None]
    """When it was down, or somebody else's."""
    lab_end: Mapped[str | None] = mapped_column(Text)
    """Why it went down, as a clause; written when that begins."""
    boot_failed_in: Mapped[str | None] = mapped_column(String(32))
    """The step in which its boot failed."""
    ended_at: Mapped[datetime | None]
    """When the session ended."""
    end_reason: Mapped[str | None] = mapped_column(Text)
    """Why it did, as a clause."""


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


class HostClock(Base):
    """How the host's clock stood when a server looked last, see `remote_lab.core.clock`; one row."""

    __tablename__ = "host_clock"

    id: Mapped[int] = mapped_column(primary_key=True)
    """Always 1."""
    boot_id: Mapped[str] = mapped_column(String(36))
    """Of the host, since when its steady seconds count."""
    offset_seconds: Mapped[float]
    """Between the steady seconds and the time of day."""
