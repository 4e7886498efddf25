"""What all commands have in common: how refusals are said, the exit statuses, the option --json."""

from __future__ import annotations

import click

from remote_lab import __version__
from remote_lab.errors import RemoteLabError

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")

EPILOG = """\b
Exit status: 0 done, 1 refused or failed, with a sentence on stderr, 2 wrong usage.
  status  0 the server runs, 1 it runs but is not well, 3 no server runs
  doctor  0 labs can run here, 1 they cannot
  lab netlab  the exit status of netlab"""


class Command(click.Command):
    """Says a refusal as one sentence, with exit status 1."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except RemoteLabError as error:
            raise click.ClickException(str(error)) from error


class Group(click.Group):
    """Lists its commands in the order in which they were written."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class Commands(Group):
    """Options without a command are those of `serve`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].startswith("--") and args[0] not in ("--help", "--version"):
            args = ["serve", *args]
        return super().parse_args(ctx, args)


@click.group(cls=Commands, epilog=EPILOG)
@click.version_option(__version__, prog_name="remote-lab")
def commands() -> None:
    """Exclusive, queued access to real network labs on this host.

    Settings are environment variables (REMOTE_LAB_...): `remote-lab config` shows them.
    """
