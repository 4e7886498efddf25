"""`remote-lab history`: who had which lab, and how it ended."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from remote_lab.cli import output
from remote_lab.cli.group import Command, json_option
from remote_lab.cli.records import reading
from remote_lab.config import Config
from remote_lab.durations import EXPECTED, parse_seconds

if TYPE_CHECKING:
    from remote_lab.core.history import Entry

SHOWN = 50
_HEADERS = ("OPENED", "TOKEN", "SESSION", "SLOT", "WAITED", "HELD", "TOPOLOGY", "LAB", "END", "FOR")


def _moment(_ctx: click.Context, _param: click.Parameter, text: str | None) -> datetime | None:
    """A time that has passed since, or a day or moment in UTC."""
    if text is None:
        return None
    try:
        return datetime.now(UTC) - timedelta(seconds=parse_seconds(text))
    except (ValueError, OverflowError):
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither {EXPECTED} nor a date like 2026-05-27.") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@click.command(cls=Command)
@click.option("--since", metavar="TIME", callback=_moment, help="Only since 90m, 12h, 7d ago, or a date in UTC.")
@click.option("--token", metavar="NAME", help="Only what was opened with this token.")
@click.option("--ci-job", metavar="ID", help="Only of this CI job, named by its id or its URL.")
@click.option("--topology", metavar="NAME", help="Only this topology: its file name, or the beginning of its identity.")
@click.option("--limit", default=SHOWN, show_default=True, type=click.IntRange(1, 1_000_000), help="The most to show.")
@json_option
def history(
    since: datetime | None, token: str | None, ci_job: str | None, topology: str | None, limit: int, as_json: bool
) -> None:
    """Show who had which lab, for how long and how it ended, the last first.

    A line is one lab of one session, or a session that had none. It is kept for REMOTE_LAB_HISTORY_DAYS after the
    session has ended. --json has all of it: CI jobs, identities, each moment.
    """
    from remote_lab.core.history import Wanted, entries

    with reading(Config.from_environment()) as transaction:
        found = entries(transaction, Wanted(since, token, ci_job, topology), limit + 1)
    shown = found[:limit]
    if as_json:
        output.print_json(shown)
        return
    if not shown:
        click.echo("Nothing like that is on record.")
        return
    output.table(_HEADERS, _rows(shown))
    if len(found) > limit:
        click.echo(f"\nThere is more, before that: see --limit, which is {limit}, and --since.", err=True)


def _rows(found: Iterable[Entry]) -> Iterable[tuple[object, ...]]:
    for one in found:
        yield (
            f"{one.opened_at:%Y-%m-%d %H:%M:%S}",
            one.token,
            one.session,
            one.slot,
            output.age(one.opened_at, one.activated_at or one.ended_at),
            output.age(one.activated_at, one.ended_at),
            one.topology,
            _lab(one),
            _end(one),
            one.purpose or one.ci_job_url or one.ci_job_id,
        )


def _lab(one: Entry) -> str | None:
    """How far the lab of an entry came."""
    if one.lab_id is None:
        return None
    if one.boot_failed_in is not None:
        return f"boot failed in {one.boot_failed_in}"
    if one.running_at is None:
        return "boots" if one.lab_end is None else f"never up: {one.lab_end}"
    how = "reused, up" if one.reused else "up"
    return f"{how} {output.age(one.running_at, one.lab_ended_at)}"


def _end(one: Entry) -> str | None:
    """Why the lab of an entry ended when it went before its session, else why the session did."""
    if one.lab_ended_at is not None and (one.ended_at is None or one.lab_ended_at < one.ended_at):
        return one.lab_end
    return one.end_reason or ("active" if one.activated_at else "waiting")
