"""How the host's clock stood when a server looked last."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "host_clock",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("boot_id", sa.String(36), nullable=False),
        sa.Column("offset_seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_host_clock")),
    )


def downgrade() -> None:
    op.drop_table("host_clock")
