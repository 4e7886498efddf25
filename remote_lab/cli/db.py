"""`remote-lab db`: the database."""

from __future__ import annotations

from pathlib import Path

import click

from remote_lab import __version__
from remote_lab.cli.group import Group
from remote_lab.cli.records import database_path
from remote_lab.config import Config


@click.group(cls=Group)
def db() -> None:
    """The database: schema and backups."""


@db.command()
def upgrade() -> None:
    """Bring the database to this version's schema; serve does it as well."""
    from remote_lab.core.db import Database

    config = Config.from_environment()
    Database(config.database).upgrade()
    click.echo(f"{database_path(config)} has the schema of version {__version__}.")


@db.command()
@click.argument("file", type=click.Path(path_type=Path))
def backup(file: Path) -> None:
    """Copy the database to the new FILE, also while a server runs.

    FILE has the queue and all sessions with their ids, so only its owner may read it. To restore it, stop the server
    and put it in the place of the database, whose -wal and -shm files must go.
    """
    from remote_lab.core.backup import back_up

    database = database_path(Config.from_environment())
    size_bytes = back_up(database, file.absolute())
    click.echo(f"Copied {database} to {file}, {size_bytes / 1000:.0f} kB.")
