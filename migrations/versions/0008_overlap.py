"""Uploads of sessions that wait, and labs that are booted for them ahead."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("token_id", sa.Integer()),
        sa.Column("identity", sa.String(64), nullable=False),
        sa.Column("topology", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("used_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["token_id"], ["tokens.id"], name=op.f("fk_uploads_token_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
    )
    op.create_index(op.f("ix_uploads_identity"), "uploads", ["identity"])
    # alembic would build the table anew for this, which foreign keys of other tables forbid.
    op.execute(
        "ALTER TABLE sessions ADD COLUMN upload_id VARCHAR(36) CONSTRAINT fk_sessions_upload_id REFERENCES uploads (id)"
    )
    op.create_index(op.f("ix_sessions_upload_id"), "sessions", ["upload_id"])
    op.add_column("labs", sa.Column("is_unused", sa.Boolean(), nullable=False, server_default=sa.text("0")))


def downgrade() -> None:
    op.drop_column("labs", "is_unused")
    op.drop_index(op.f("ix_sessions_upload_id"), "sessions")
    op.drop_column("sessions", "upload_id")
    op.drop_index(op.f("ix_uploads_identity"), "uploads")
    op.drop_table("uploads")
