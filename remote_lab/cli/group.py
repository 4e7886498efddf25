"""What the server's commands have in common: the group they are in, the exit statuses, the option --json."""

from __future__ import annotations

import click

from remote_lab import __version__
from remote_lab.jobs.group import Command, Commands, Group

__all__ = ["Command", "Group", "commands", "json_option"]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")

EPILOG = """\b
Exit status: 0 done, 1 refused or failed, with a sentence on stderr, 2 wrong usage.
  status  0 the server runs, 1 it runs but is not well, 3 no server runs
  doctor  0 labs can run here, 1 they cannot
  lab netlab  the exit status of netlab
  run  the exit status of its command"""


@click.group(cls=Commands, epilog=EPILOG)
@click.version_option(__version__, prog_name="remote-lab")
def commands() -> None:
    """Exclusive, queued access to real network labs on this host.

    Settings are environment variables (REMOTE_LAB_...): `remote-lab config` shows them.
    """
