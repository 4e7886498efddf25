"""`remote-lab token`: who may call. Straight on the database, beside a server that runs as well."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from remote_lab.callers import RIGHTS, USE
from remote_lab.cli import output
from remote_lab.cli.changes import check_owner
from remote_lab.cli.group import Group, json_option
from remote_lab.cli.records import has_database, reading
from remote_lab.config import Config
from remote_lab.durations import EXPECTED, parse_seconds

if TYPE_CHECKING:
    from sqlalchemy.orm import Session as Transaction

NEVER = "never"
MOST_SECONDS = 100 * 366 * 86400.0


def _expiry(_context: click.Context, _parameter: click.Parameter, text: str) -> timedelta | None:
    if text.strip().lower() == NEVER:
        return None
    try:
        seconds = parse_seconds(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MOST_SECONDS:
        raise click.BadParameter(f"{text!r} cannot be used: expected {EXPECTED}, or {NEVER}.")
    return timedelta(seconds=seconds)


def _name(_context: click.Context, _parameter: click.Parameter, text: str) -> str:
    from remote_lab.core.tokens import NAME

    if not NAME.fullmatch(text):
        raise click.BadParameter(
            f"{text!r} cannot be used: expected 1 to 64 letters, digits, and . _ @ - behind the first."
        )
    return text


@click.group(cls=Group)
def token() -> None:
    """Tokens: who may call the server, and what for.

    A server on loopback asks for them when there is one, on any other address always; see REMOTE_LAB_AUTH.
    """


@token.command()
@click.argument("name", callback=_name)
@click.option(
    "--right",
    "rights",
    type=click.Choice(RIGHTS),
    multiple=True,
    default=(USE,),
    show_default=True,
    help="What it may; more than once for more. use: sessions and labs of its own. trusted: that, and uploads that are "
    "programs where no sandbox holds them. admin: see and end everybody's sessions.",
)
@click.option(
    "--expires", default="90d", show_default=True, callback=_expiry, metavar="TIME", help=f"90d, 12h ..., or {NEVER}."
)
@json_option
def create(name: str, rights: tuple[str, ...], expires: timedelta | None, as_json: bool) -> None:
    """Make a token and print it: once, because only its SHA-256 is kept.

    On standard output is the token alone, so that $(remote-lab token create ci) is one.
    """
    from remote_lab.core import tokens
    from remote_lab.core.instance import find_holder

    config = Config.from_environment()
    now = datetime.now(UTC)
    expires_at = None if expires is None else now + expires
    with _writing(config) as transaction:
        is_first = not tokens.records(transaction, now)
        made = tokens.create(transaction, name, rights, expires_at, now)
        record = next(one for one in tokens.records(transaction, now) if one.name == name)
    if as_json:
        output.print_json({"name": name, "rights": record.rights, "expires_at": expires_at, "token": made})
    else:
        until = "never expires" if expires_at is None else f"expires at {expires_at:%Y-%m-%d %H:%M} UTC"
        click.echo(f"Token {name} may {' and '.join(record.rights)}, and {until}. It is not shown again.", err=True)
        click.echo(made)
    if is_first and find_holder(config.state_dir) is not None:
        click.echo(
            "It is the first one: a server that runs open goes on so until it is restarted, then it asks for tokens.",
            err=True,
        )


@token.command(name="list")
@json_option
def list_tokens(as_json: bool) -> None:
    """List all tokens, also those that open nothing any more."""
    from remote_lab.core import tokens

    config = Config.from_environment()
    found = []
    if has_database(config):
        with reading(config) as transaction:
            found = tokens.records(transaction, datetime.now(UTC))
    if as_json:
        output.print_json([vars(one) for one in found])
    elif not found:
        click.echo("There is no token. Make one with: remote-lab token create NAME")
    else:
        headers = ("TOKEN", "RIGHTS", "STATE", "EXPIRES", "LAST USED", "MADE", "SESSIONS")
        output.table(
            headers,
            (
                (
                    one.name,
                    " ".join(one.rights),
                    one.state,
                    NEVER if one.expires_at is None else f"{one.expires_at:%Y-%m-%d %H:%M}",
                    NEVER if one.last_used_at is None else f"{output.age(one.last_used_at)} ago",
                    f"{output.age(one.created_at)} ago",
                    one.live_sessions,
                )
                for one in found
            ),
        )


@token.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Let a token open nothing from now on, not even its own sessions.

    Those end when they have been silent for too long, or at once with `remote-lab session end`.
    """
    from remote_lab.core import tokens

    with _writing(Config.from_environment()) as transaction:
        record = tokens.revoke(transaction, name, datetime.now(UTC))
    click.echo(f"Token {name} opens nothing any more.")
    if record.live_sessions:
        click.echo(
            f"Its {record.live_sessions} session{'' if record.live_sessions == 1 else 's'} will end when silent for "
            "too long; `remote-lab session list` and `session end` end them now."
        )


@contextmanager
def _writing(config: Config) -> Iterator[Transaction]:
    """A write transaction; without a server the database is made, or brought to this version, first."""
    from remote_lab.core.db import Database
    from remote_lab.core.instance import Instance, find_holder
    from remote_lab.core.schema import bring_up_to_date

    instance = Instance(config.state_dir)
    check_owner(config, could_server=False)
    database = Database(config.database)
    try:
        if find_holder(config.state_dir) is None:
            with instance.worker():
                bring_up_to_date(database)
        with database.write() as transaction:
            yield transaction
    finally:
        database.dispose()
