"""Who had which lab, kept for longer than sessions and labs are; what is on record already is its beginning."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from remote_lab.urls import without_secrets

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_ON_RECORD = """
SELECT sessions.ticket, substr(sessions.id, 1, 8) AS session, tokens.name AS token,
    sessions.purpose, sessions.ci_job_id, sessions.ci_job_url,
    sessions.created_at AS opened_at, sessions.activated_at, sessions.slot,
    labs.id AS lab_id, labs.topology, labs.identity, CASE WHEN labs.id IS NULL THEN NULL ELSE 0 END AS reused,
    labs.created_at AS acquired_at, labs.running_at, labs.ended_at AS lab_ended_at,
    labs.phase AS boot_failed_in, sessions.ended_at, sessions.end_reason
FROM sessions LEFT JOIN labs ON labs.session_id = sessions.id LEFT JOIN tokens ON tokens.id = sessions.token_id
ORDER BY sessions.ticket, labs.created_at
"""


def upgrade() -> None:
    op.create_table(
        "history",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("ticket", sa.Integer(), nullable=False),
        sa.Column("session", sa.String(8), nullable=False),
        sa.Column("token", sa.String(64)),
        sa.Column("purpose", sa.Text()),
        sa.Column("ci_job_id", sa.Text()),
        sa.Column("ci_job_url", sa.Text()),
        sa.Column("opened_at", sa.DateTime(), nullable=False),
        sa.Column("activated_at", sa.DateTime()),
        sa.Column("slot", sa.Integer()),
        sa.Column("lab_id", sa.String(36)),
        sa.Column("topology", sa.Text()),
        sa.Column("identity", sa.String(64)),
        sa.Column("reused", sa.Boolean()),
        sa.Column("acquired_at", sa.DateTime()),
        sa.Column("running_at", sa.DateTime()),
        sa.Column("lab_ended_at", sa.DateTime()),
        sa.Column("lab_end", sa.Text()),
        sa.Column("boot_failed_in", sa.String(32)),
        sa.Column("ended_at", sa.DateTime()),
        sa.Column("end_reason", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_history")),
        sqlite_autoincrement=True,
    )
    for column in ("ticket", "lab_id", "ended_at"):
        op.create_index(op.f(f"ix_history_{column}"), "history", [column])
    _begin_with_what_is_on_record(op.get_bind())


def _begin_with_what_is_on_record(connection: sa.Connection) -> None:
    rows = [dict(row._mapping) for row in connection.execute(sa.text(_ON_RECORD))]
    for row in rows:
        row["ci_job_url"] = row["ci_job_url"] and without_secrets(row["ci_job_url"])
    if rows:
        columns = ", ".join(rows[0])
        values = ", ".join(f":{name}" for name in rows[0])
        connection.execute(sa.text(f"INSERT INTO history ({columns}) VALUES ({values})"), rows)  # noqa: S608 - ours


def downgrade() -> None:
    op.drop_table("history")
