"""Leases, what a session is for, and the phase in which a boot failed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sessions", sa.Column("purpose", sa.Text()))
    op.add_column("sessions", sa.Column("ci_job_url", sa.Text()))
    op.add_column("sessions", sa.Column("lease_seconds", sa.Float()))
    op.add_column("sessions", sa.Column("lease_expires_at", sa.DateTime()))
    op.add_column("labs", sa.Column("phase", sa.String(32)))


def downgrade() -> None:
    op.drop_column("labs", "phase")
    for column in ("lease_expires_at", "lease_seconds", "ci_job_url", "purpose"):
        op.drop_column("sessions", column)
