"""The command line: `remote-lab`, and the same commands on `flask --app wsgi`."""

from __future__ import annotations

import logging.config
from typing import TYPE_CHECKING

import click

from remote_lab import __version__
from remote_lab.config import Config
from remote_lab.errors import RemoteLabError
from remote_lab.logs import logging_config

if TYPE_CHECKING:
    from remote_lab.netlab.image import Images

LOG_LEVELS = click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False)


class Commands(click.Group):
    """Says a refusal as one sentence with exit status 1; options without a command are those of `serve`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].startswith("--") and args[0] not in ("--help", "--version"):
            args = ["serve", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except RemoteLabError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=Commands)
@click.version_option(__version__, prog_name="remote-lab")
def commands() -> None:
    """Exclusive, queued access to real network labs on this host.

    Settings are environment variables (REMOTE_LAB_...), see docs/operations.rst.
    """


@commands.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="Port to serve on.")
@click.option("--log-level", default="INFO", show_default=True, type=LOG_LEVELS, help="What to log, on stderr.")
def serve(host: str, port: int, log_level: str) -> None:
    """Serve sessions and labs until SIGTERM or Ctrl-C. Running labs stay for the next start."""
    from remote_lab import server

    server.serve(Config.from_environment(), host, port, log_level.upper())


@commands.group()
def db() -> None:
    """The database."""


@db.command()
def upgrade() -> None:
    """Bring the database to this version's schema; serve does it as well."""
    from remote_lab.core.db import Database

    config = Config.from_environment()
    Database(config.database).upgrade()
    click.echo(f"{config.database} has the schema of version {__version__}.")


@commands.group()
def image() -> None:
    """The root file system that labs in namespaces run on."""


def _images() -> Images:
    from remote_lab.netlab.image import Images

    config = Config.from_environment()
    return Images(config.image_dir, mirror=config.image_mirror, chosen=config.image)


@image.command()
def build() -> None:
    """Build the image of this version if it is missing; takes about half a minute."""
    logging.config.dictConfig(logging_config("INFO"))
    click.echo(f"Labs run on the image {_images().ensure()}")


@image.command(name="list")
def list_images() -> None:
    """List the built images; * marks the one that labs run on."""
    for found in _images().all():
        mark = "*" if found.is_current else " "
        size = f"{found.size_bytes / 1e6:.0f} MB"
        click.echo(f"{mark} {found.name}  {size}  built {found.built_at:%Y-%m-%d %H:%M} UTC  {found.path}")


@image.command()
@click.argument("name")
def rm(name: str) -> None:
    """Remove the image NAME; refused while labs run on this host."""
    _images().remove(name)
    click.echo(f"Removed {name}.")
