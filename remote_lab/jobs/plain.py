"""`remote-lab` in a plain install, without the server part: the few commands it has, and how to get the others."""

from __future__ import annotations

from importlib.util import find_spec

import click

from remote_lab import __version__
from remote_lab.jobs.group import Commands

OPERATORS_COMMANDS = (
    *("serve", "stopped", "status", "session", "lab", "history", "token"),
    *("topology", "doctor", "config", "db", "image"),
)
"""What `remote_lab.cli` has, which cannot be asked here: its packages are missing."""

SERVER_PACKAGES = ("alembic", "filelock", "flask", "flask_smorest", "gunicorn", "marshmallow", "sqlalchemy", "yaml")
"""As `remote_lab.local.doctor` has them, which is too much to import for every command."""

SERVER_PART = "pip install 'remote-lab[server]'"


def missing_server_package() -> str | None:
    """The first package of the server part that is not installed; None when it is all there."""
    return next((name for name in SERVER_PACKAGES if find_spec(name) is None), None)


class PlainCommands(Commands):
    """Says of an operator's command what it needs, with exit status 1."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in OPERATORS_COMMANDS:
            raise click.ClickException(
                f"`remote-lab {cmd_name}` needs the server part, which is not installed here "
                f"({missing_server_package()} is missing): {SERVER_PART}"
            )
        return super().get_command(ctx, cmd_name)


@click.group(
    cls=PlainCommands,
    epilog=f"\b\nThe server and its operators' commands come with {SERVER_PART}.",
)
@click.version_option(__version__, prog_name="remote-lab")
def commands() -> None:
    """Labs for tests: real network topologies on a lab host that many share.

    REMOTE_LAB_URL is the address of the lab host.
    """
