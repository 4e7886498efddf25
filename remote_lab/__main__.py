"""The entry point of `remote-lab`: operators' commands with the server part, everybody's everywhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click


def main() -> None:
    """Run the command line."""
    try:
        commands = _commands()
    except KeyboardInterrupt:  # while it is being imported
        sys.exit(130)
    commands(prog_name="remote-lab")


def _commands() -> click.Group:
    from remote_lab.jobs import plain
    from remote_lab.jobs.release import release
    from remote_lab.jobs.run import run

    commands: click.Group = plain.commands
    if plain.missing_server_package() is None:
        from remote_lab import cli

        commands = cli.commands
    for command in (run, release):
        commands.add_command(command)
    return commands


if __name__ == "__main__":
    main()
