"""The entry point of `remote-lab`: operators' commands with the server part, everybody's everywhere."""

from __future__ import annotations

import atexit
import gc
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click


def main() -> None:
    """Run the command line.

    Most commands are over before there is garbage worth a walk through all that was imported: those that stay enable
    the collector themselves. The walk that the interpreter takes when it ends is left out as well.
    """
    gc.disable()
    atexit.register(gc.freeze)
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
