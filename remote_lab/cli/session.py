"""`remote-lab session`: the queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from remote_lab.cli import output
from remote_lab.cli.changes import Changes, changing, until_down
from remote_lab.cli.group import Group, json_option
from remote_lab.cli.records import find_live_session, find_session, reading
from remote_lab.config import Config
from remote_lab.durations import parse_seconds
from remote_lab.errors import RemoteLabError
from remote_lab.states import SessionState

if TYPE_CHECKING:
    from remote_lab.core.overview import SessionRecord

ENDED_SHOWN = 50


def _seconds(_ctx: click.Context, _param: click.Parameter, text: str) -> float:
    """Seconds, also written as `90s`, `30m`, `4h`, `1d`."""
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None


@click.group(cls=Group)
def session() -> None:
    """Sessions: who is active and who waits.

    A session is named by its id, or by four or more characters of its beginning.
    """


@session.command(name="list")
@click.option("--ended", is_flag=True, help=f"Also the last {ENDED_SHOWN} that ended, with the reason.")
@json_option
def list_sessions(ended: bool, as_json: bool) -> None:
    """List the sessions in the order of the queue."""
    from remote_lab.core import overview

    with reading(Config.from_environment()) as transaction:
        live = overview.queue(transaction)
        gone = overview.ended_sessions(transaction, ENDED_SHOWN) if ended else []
    if as_json:
        output.print_json([as_data(one) for one in (*live, *gone)])
    elif not live and not gone:
        click.echo("The queue is empty.")
    else:
        print_sessions(live)
        if live and gone:
            click.echo()
        if gone:
            print_ended(gone)


def as_data(one: SessionRecord) -> dict[str, Any]:
    """A session for programs: its lab without what its devices are, which `lab show` has."""
    lab = one.lab and {"lab_id": one.lab.lab_id, "topology": one.lab.topology, "state": one.lab.state}
    return {**vars(one), "lab": lab}


def print_sessions(live: Sequence[SessionRecord]) -> None:
    """A table of active and waiting sessions."""
    if not live:
        return
    headers = ("SESSION", "STATE", "SLOT", "IN FRONT", "SINCE", "LEASE LEFT", "LAB", "FOR")
    output.table(
        headers,
        (
            (
                output.short_id(one.session_id),
                one.state,
                one.slot,
                one.position,
                output.age(one.activated_at or one.created_at),
                output.remaining(one.lease_expires_at),
                f"{one.lab.topology} {one.lab.state}" if one.lab is not None and one.lab.is_live else None,
                one.purpose or one.ci_job_url or one.ci_job_id,
            )
            for one in live
        ),
    )


def print_ended(gone: Sequence[SessionRecord]) -> None:
    """A table of sessions that ended."""
    output.table(
        ("SESSION", "ENDED", "AFTER", "WHY", "FOR"),
        (
            (
                output.short_id(one.session_id),
                f"{output.age(one.ended_at)} ago",
                output.age(one.created_at, one.ended_at),
                one.end_reason,
                one.purpose or one.ci_job_url or one.ci_job_id,
            )
            for one in gone
        ),
    )


@session.command()
@click.argument("which", metavar="SESSION")
@json_option
def show(which: str, as_json: bool) -> None:
    """Show one session, also one that has ended."""
    with reading(Config.from_environment()) as transaction:
        one = find_session(transaction, which)
    if as_json:
        output.print_json(as_data(one))
        return
    lab = one.lab
    pairs: list[tuple[str, object]] = [
        ("Session", one.session_id),
        ("State", one.state),
        ("In front", one.position),
        ("Slot", one.slot),
        ("For", one.purpose),
        ("CI job", one.ci_job_url),
        ("CI job id", one.ci_job_id),
        ("Token", one.token),
        ("Opened", output.moment(one.created_at)),
        ("Active since", output.moment(one.activated_at)),
        ("Lease left", output.remaining(one.lease_expires_at)),
        ("Lab", f"{lab.topology} {lab.state}" if lab else None),
        ("References", lab.ref_count if lab and lab.is_live else None),
    ]
    if one.position is None:
        pairs = [pair for pair in pairs if pair[0] not in ("In front", "Lease left", "References")]
        pairs += [("Ended", output.moment(one.ended_at)), ("Why", one.end_reason)]
    output.details(pairs)


@session.command()
@click.argument("which", metavar="[SESSION]...", nargs=-1)
@click.option("--all", "everyone", is_flag=True, help="All sessions, the waiting ones first.")
def end(which: tuple[str, ...], everyone: bool) -> None:
    """End sessions and take their labs down.

    Returns when those labs are down. Who asks for such a session is told that it ended.
    """
    if bool(which) == everyone:
        raise click.UsageError("Name the sessions to end, or say --all.")
    config = Config.from_environment()
    chosen = _chosen(config, which)
    if not chosen:
        click.echo("The queue is empty.")
        return
    with changing(config) as changes:
        failed = sum(not _end(config, changes, one) for one in chosen)
    if failed:
        raise click.ClickException(f"{failed} of {len(chosen)} sessions did not end in order.")


def _chosen(config: Config, which: Sequence[str]) -> list[SessionRecord]:
    """The sessions that are meant, each once; all of them without names, from the end of the queue."""
    from remote_lab.core import overview

    with reading(config) as transaction:
        if which:
            named = (find_live_session(transaction, one) for one in which)
            return list({one.session_id: one for one in named}.values())
        everybody = overview.queue(transaction)
    # Whoever is active goes last, or ending it would promote somebody who is about to be ended.
    return sorted(everybody, key=lambda one: (one.state == SessionState.ACTIVE, -(one.position or 0)))


def _end(config: Config, changes: Changes, one: SessionRecord) -> bool:
    """End one session; False when that was refused, or its lab did not go down in order."""
    name = output.short_id(one.session_id)
    try:
        is_ours = changes.end_session(one.session_id)
        click.echo(f"Session {name} ended." if is_ours else f"Session {name} had ended by then.")
        if one.lab is None or not one.lab.is_live:
            return True
        lab = until_down(config, one.lab.lab_id)
    except (click.ClickException, RemoteLabError) as error:
        reason = error.message if isinstance(error, click.ClickException) else error.detail
        click.echo(f"Error: session {name}: {reason}", err=True)
        return False
    return say_down(one.lab.topology, lab.failure if lab else None, one.lab.failure)


def say_down(topology: str, failure: str | None, failure_before: str | None) -> bool:
    """Say that a lab is down; False when something went wrong in that."""
    if failure is not None and failure != failure_before and not failure.startswith("the boot was ended"):
        click.echo(f"Error: lab {output.plain(topology)} went down, but {output.plain(failure)}", err=True)
        return False
    click.echo(f"Lab {output.plain(topology)} is down.")
    return True


@session.command()
@click.argument("which", metavar="SESSION")
@click.argument("seconds", metavar="TIME", callback=_seconds)
def extend(which: str, seconds: float) -> None:
    """Let an active session go on for TIME from now.

    TIME is seconds, or 90s, 30m, 4h, 1d; 0 is without limit. The most is REMOTE_LAB_LEASE_SECONDS from the moment when
    it became active.
    """
    config = Config.from_environment()
    with reading(config) as transaction:
        one = find_live_session(transaction, which)
    with changing(config) as changes:
        changes.extend_session(one.session_id, seconds)
    with reading(config) as transaction:
        one = find_session(transaction, one.session_id)
    until = "goes on without limit" if one.lease_expires_at is None else f"ends at {one.lease_expires_at:%H:%M:%S} UTC"
    left = "" if one.lease_expires_at is None else f", in {output.remaining(one.lease_expires_at)}"
    click.echo(f"Session {output.short_id(one.session_id)} {until}{left}.")
