"""`remote-lab config`: every setting, where its value comes from, and what is wrong with it."""

from __future__ import annotations

import difflib
import re

import click

from remote_lab.cli import output
from remote_lab.cli.group import Command, json_option
from remote_lab.config import Setting, read_settings, unknown_variables

CLIENT_VARIABLES = frozenset(
    f"REMOTE_LAB_{name}" for name in ("URL", "REQUEST_TIMEOUT", "SESSION_TIMEOUT", "ACQUISITION_TIMEOUT", "TOKEN")
)
"""What the client reads, which has no part of the server."""
_USER_INFO = re.compile(r"(://)[^/@]*@")


@click.command(cls=Command)
@json_option
def config(as_json: bool) -> None:
    """Show all settings: value, where it comes from, meaning.

    Exit status 1 when one of them cannot be used: the server would not start.
    """
    settings = [_without_password(setting) for setting in read_settings()]
    if as_json:
        output.print_json(settings)
    else:
        rows = ((one.variable, one.text, one.source, one.meaning) for one in settings)
        output.table(("VARIABLE", "VALUE", "SOURCE", "MEANING"), rows, limit=None)
    known = [setting.variable for setting in settings]
    for variable in unknown_variables():
        if variable not in CLIENT_VARIABLES:
            similar = difflib.get_close_matches(variable, known, 1)
            hint = f" Is {similar[0]} meant?" if similar else ""
            click.echo(f"Warning: {output.plain(variable)} is no setting and does nothing.{hint}", err=True)
    wrong = [setting for setting in settings if setting.problem]
    for one in wrong:
        sentence = f"{one.variable}={one.text!r} ({one.source}) cannot be used: expected {one.problem}."
        click.echo(f"Error: {sentence}", err=True)
    if wrong:
        raise SystemExit(1)


def _without_password(setting: Setting) -> Setting:
    text = setting.text and _USER_INFO.sub(r"\1***@", setting.text)
    return Setting(setting.variable, text, setting.source, setting.meaning, setting.problem)
