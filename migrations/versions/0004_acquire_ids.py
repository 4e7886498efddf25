"""What a user calls a reference, so that the same acquire asked twice is one reference."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("lab_references", sa.Column("acquire_id", sa.String(128)))


def downgrade() -> None:
    op.drop_column("lab_references", "acquire_id")
