"""What all commands have in common, an operator's and everybody's: how refusals are said, how help lists commands.

Needs click and the vocabulary only. What is particular to the server's commands is in `remote_lab.cli.group`.
"""

from __future__ import annotations

import click

from remote_lab.errors import RemoteLabError


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
    """All of `remote-lab`: options without a command are those of `serve`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].startswith("--") and args[0] not in ("--help", "--version"):
            args = ["serve", *args]
        return super().parse_args(ctx, args)
