"""`remote-lab db`: the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from remote_lab import __version__
from remote_lab.cli.changes import check_owner
from remote_lab.cli.group import Group
from remote_lab.cli.records import database_path
from remote_lab.config import Config


@click.group(cls=Group)
def db() -> None:
    """The database: schema and backups."""


@db.command()
def upgrade() -> None:
    """Bring the database to this version's schema; serve does it as well.

    One of an earlier version is copied first, into the folder backups beside it.
    """
    from remote_lab.core.db import Database
    from remote_lab.core.schema import bring_up_to_date

    database = Database(Config.from_environment().database)
    bring_up_to_date(database)
    database.dispose()
    click.echo(f"{database.path} has the schema of version {__version__}.")


@db.command()
@click.argument("file", type=click.Path(path_type=Path))
def backup(file: Path) -> None:
    """Copy the database to the new FILE, also while a server runs.

    FILE has the queue and all sessions with their ids, so only its owner may read it. `remote-lab db restore FILE`
    puts it back.
    """
    from remote_lab.core.backup import back_up

    database = database_path(Config.from_environment())
    size_bytes = back_up(database, file.absolute())
    click.echo(f"Copied {database} to {file}, {size_bytes / 1000:.0f} kB.")


@db.command()
@click.argument("file", type=click.Path(path_type=Path))
def restore(file: Path) -> None:
    """Put a backup in the place of the database, while no server runs.

    FILE is checked first and stays as it is. The database that was there stays beside it under a name with the date.
    Tokens are as they were then: one that was revoked since is valid again.
    """
    from remote_lab.core.backup import put_in_place
    from remote_lab.core.schema import examine_backup

    config = Config.from_environment()
    database = database_path(config)
    examine_backup(file.absolute())
    with _without_server(config):
        before = put_in_place(file.absolute(), database)
    click.echo(f"{database} is what {file} was.")
    if before is not None:
        click.echo(f"What was there before is {before}, with what lies beside it.")
    click.echo("The next start goes on with its sessions, and ends labs that it does not know.")


@contextmanager
def _without_server(config: Config) -> Iterator[None]:
    """Keep the state folder for this command; ClickException when a server has it."""
    from remote_lab.core.instance import Instance, find_holder

    holder = find_holder(config.state_dir)
    if holder is not None:
        raise click.ClickException(
            f"A server runs on {config.state_dir}, pid {holder.pid} of {holder.user}: stop it first. "
            "It would write what it knows into the restored database."
        )
    if config.state_dir.exists():
        check_owner(config)
    with Instance(config.state_dir).worker():
        yield
