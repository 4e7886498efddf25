"""The last labs of an identity are found at once, for estimates."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(op.f("ix_labs_identity"), "labs", ["identity", "created_at"])


def downgrade() -> None:
    op.drop_index(op.f("ix_labs_identity"), "labs")
