"""The id of the CI job that a session belongs to, by which a clean-up step ends what the job left."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sessions", sa.Column("ci_job_id", sa.Text()))
    op.create_index(op.f("ix_sessions_ci_job_id"), "sessions", ["ci_job_id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_sessions_ci_job_id"), "sessions")
    op.drop_column("sessions", "ci_job_id")
