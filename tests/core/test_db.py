"""The schema: what the migrations build, from nothing and from what earlier versions left."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from importlib import import_module
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from fakes import FakeRunner
from sqlalchemy import create_engine

from remote_lab.config import Config
from remote_lab.core.db import Database
from remote_lab.core.manager import LabManager
from remote_lab.core.models import Base
from remote_lab.core.sessions import Wish

FIRST, LATEST = "24f01c2d-8f4e-4a5b-9c3d-1e2f3a4b5c6d", "7d0f7c39-9e0c-4a5e-8f7b-6f1f6a0f5b11"


def migrate(path: Path, revision: str, direction: str = "upgrade") -> None:
    """Bring a database to a revision, as a server of that version would have."""
    settings = AlembicConfig()
    settings.set_main_option("script_location", import_module("remote_lab.migrations").__path__[0])
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        settings.attributes["connection"] = connection
        getattr(command, direction)(settings, revision)
    engine.dispose()


def fill(path: Path) -> None:
    """Leave a queue in a database of the first versions."""
    insert = (
        "INSERT INTO sessions (ticket, id, state, slot, created_at) VALUES (?, ?, ?, ?, '2026-05-27 12:34:56.000000')"
    )
    with closing(sqlite3.connect(path)) as database, database:
        database.executemany(insert, [(7, FIRST, "active", 1), (9, LATEST, "waiting", None)])
    database.close()


def test_the_migrations_build_what_the_models_say(config: Config) -> None:
    """Tables, columns and indexes alike: nobody has to remember to change both."""
    database = Database(config.database)
    database.upgrade()
    database.dispose()
    engine = create_engine(config.database)
    with engine.connect() as connection:
        assert (
            compare_metadata(MigrationContext.configure(connection, opts={"compare_type": False}), Base.metadata) == []
        )
    engine.dispose()


@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_a_queue_of_an_earlier_version_goes_on(config: Config, runner: FakeRunner, revision: str) -> None:
    """Everybody keeps the place; what an earlier version did not know is empty, and can be said from now on."""
    path = config.state_dir / "remote-lab.sqlite3"
    migrate(path, revision)
    fill(path)
    database = Database(config.database)
    database.upgrade()
    manager = LabManager(config, database, runner)
    try:
        first, latest = manager.session(FIRST), manager.session(LATEST)
        assert (first.status, first.position, latest.status, latest.position) == ("active", 0, "waiting", 1)
        assert manager.open_session(Wish(ci_job_id="4711")).position == 2
        assert (manager.end_ci_job("4711"), manager.end_ci_job("None")) == (1, 0)
    finally:
        database.dispose()


def test_the_way_back_keeps_the_queue(tmp_path: Path) -> None:
    """An operator who goes back to the version before loses what only the newer one knows."""
    path = tmp_path / "queue.sqlite3"
    migrate(path, "head")
    fill(path)
    migrate(path, "0002", "downgrade")
    with closing(sqlite3.connect(path)) as database:
        assert [row[0] for row in database.execute("SELECT id FROM sessions ORDER BY ticket")] == [FIRST, LATEST]
        assert "ci_job_id" not in {row[1] for row in database.execute("PRAGMA table_info(sessions)")}
