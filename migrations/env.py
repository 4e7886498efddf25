"""What alembic runs: every migration on the connection it was given, in that connection's transaction."""

from __future__ import annotations

from alembic import context

from remote_lab.core.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
)
context.run_migrations()
