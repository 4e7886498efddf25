"""`remote-lab status`: is a server there, and what is it doing?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from remote_lab.cli import output
from remote_lab.cli.changes import call_server, server_url
from remote_lab.cli.group import Command, json_option
from remote_lab.cli.lab import lab_rows
from remote_lab.cli.records import has_database, reading
from remote_lab.cli.session import as_data, print_sessions
from remote_lab.config import Config
from remote_lab.durations import compact

if TYPE_CHECKING:
    from remote_lab.core.instance import Holder
    from remote_lab.core.overview import LabRecord, SessionRecord

UNWELL, NOT_RUNNING = 1, 3


@click.command(cls=Command)
@json_option
def status(as_json: bool) -> None:
    """Show whether a server runs, who has the slots, and who waits.

    Exit status 0 when it runs, 1 when it runs but is not well, 3 when no server runs.
    """
    from remote_lab.core.instance import find_holder

    config = Config.from_environment()
    holder = find_holder(config.state_dir)
    health, problem = _health(config, holder) if holder is not None else ({}, None)
    sessions, labs = _on_record(config)
    slots = health.get("slots", config.slots)
    if as_json:
        output.print_json(
            {
                "running": holder is not None,
                "problem": problem,
                "server": holder and {**vars(holder), "url": server_url(holder)},
                "uptime_seconds": health.get("uptime"),
                "state_dir": config.state_dir,
                "slots": slots,
                "sessions": [as_data(one) for one in sessions],
                "labs": [{name: value for name, value in vars(one).items() if name != "devices"} for one in labs],
            }
        )
    else:
        _print(config, holder, health, problem, slots, sessions, labs)
    raise SystemExit(NOT_RUNNING if holder is None else UNWELL if problem else 0)


def _health(config: Config, holder: Holder) -> tuple[dict[str, Any], str | None]:
    """What the server says of itself, and what is wrong with it."""
    try:
        answer = call_server(config, holder, "GET", "/debug/health")
        health = answer.json()
        if answer.status_code == 200 and isinstance(health, dict):
            return health, health.get("problem")
        if answer.status_code == 401:
            return {}, "it asks for a token: become the user that it runs as, or set REMOTE_LAB_TOKEN"
        return {}, f"/debug/health answers {answer.status_code}"
    except click.ClickException as error:
        return {}, error.message
    except ValueError:
        return {}, f"{server_url(holder)} is no Remote Lab Manager"


def _on_record(config: Config) -> tuple[list[SessionRecord], list[LabRecord]]:
    """The queue and the labs; nothing when there is no database yet."""
    from remote_lab.core import overview

    if not has_database(config):
        return [], []
    with reading(config) as transaction:
        return overview.queue(transaction), overview.live_labs(transaction)


def _print(
    config: Config,
    holder: Holder | None,
    health: dict[str, Any],
    problem: str | None,
    slots: int,
    sessions: list[SessionRecord],
    labs: list[LabRecord],
) -> None:
    active = sum(one.position is not None and one.slot is not None for one in sessions)
    pairs: list[tuple[str, object]] = []
    if holder is None:
        pairs.append(("Server", "not running"))
    else:
        up = f"up {compact(health['uptime'])}" if "uptime" in health else "does not answer"
        pairs += [
            ("Server", f"{server_url(holder)}, {up}, version {holder.version}"),
            ("Process", f"pid {holder.pid} of {holder.user} on {holder.host}, since {holder.started_at}"),
        ]
    if problem:
        pairs.append(("Problem", problem))
    pairs += [
        ("State", config.state_dir),
        ("Slots", f"{active} of {slots} in use"),
        ("Queue", f"{len(sessions) - active} waiting"),
    ]
    output.details(pairs)
    if sessions:
        click.echo()
        print_sessions(sessions)
    # The lab of a session that ended holds its slot until it is down, and so shows why nobody is promoted.
    listed = {one.session_id for one in sessions}
    if leaving := [one for one in labs if one.session_id not in listed]:
        click.echo("\nOn their way down after their session ended:")
        lab_rows(leaving)
