"""First light: the queue, labs and references."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

LIVE_LAB = "state IN ('starting', 'running', 'stopping')"


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("ticket", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("slot", sa.Integer()),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("activated_at", sa.DateTime()),
        sa.Column("ended_at", sa.DateTime()),
        sa.Column("end_reason", sa.Text()),
        sa.CheckConstraint("state != 'active' OR slot IS NOT NULL", name=op.f("ck_sessions_active_has_slot")),
        sa.CheckConstraint("state IN ('waiting', 'active', 'ended')", name=op.f("ck_sessions_state")),
        sa.PrimaryKeyConstraint("ticket", name=op.f("pk_sessions")),
        sa.UniqueConstraint("id", name=op.f("uq_sessions_id")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_sessions_state_ticket", "sessions", ["state", "ticket"])
    op.create_index(
        "uq_sessions_active_slot", "sessions", ["slot"], unique=True, sqlite_where=sa.text("state = 'active'")
    )
    op.create_table(
        "labs",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("session_id", sa.String(36), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("identity", sa.String(64), nullable=False),
        sa.Column("topology", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("devices", sa.JSON()),
        sa.Column("failure", sa.Text()),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("running_at", sa.DateTime()),
        sa.Column("ended_at", sa.DateTime()),
        sa.CheckConstraint(
            "state IN ('starting', 'running', 'stopping', 'stopped', 'failed')", name=op.f("ck_labs_state")
        ),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name=op.f("fk_labs_session_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_labs")),
    )
    op.create_index(op.f("ix_labs_session_id"), "labs", ["session_id"])
    op.create_index("uq_labs_live_slot", "labs", ["slot"], unique=True, sqlite_where=sa.text(LIVE_LAB))
    op.create_table(
        "lab_references",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("lab_id", sa.String(36), nullable=False),
        sa.Column("session_id", sa.String(36), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["lab_id"], ["labs.id"], name=op.f("fk_lab_references_lab_id")),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name=op.f("fk_lab_references_session_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lab_references")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_lab_references_lab_id"), "lab_references", ["lab_id"])
    op.create_index(op.f("ix_lab_references_session_id"), "lab_references", ["session_id"])


def downgrade() -> None:
    op.drop_table("lab_references")
    op.drop_table("labs")
    op.drop_table("sessions")
