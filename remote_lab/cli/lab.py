"""`remote-lab lab`: the labs that hold slots."""

from __future__ import annotations

import gc
import logging.config
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from remote_lab.cli import output
from remote_lab.cli.changes import REASON, changing, check_owner, until_down
from remote_lab.cli.group import Command, Group, json_option
from remote_lab.cli.records import find_lab, find_log, reading
from remote_lab.cli.session import say_down
from remote_lab.config import Config
from remote_lab.logs import logging_config
from remote_lab.states import LabState

if TYPE_CHECKING:
    from remote_lab.core.overview import LabRecord
    from remote_lab.netlab.runner import LabPlace

FOLLOW_SECONDS = 0.1
_CHUNK_BYTES = 65536

which_argument = click.argument("which", metavar="[LAB]", required=False)


@click.group(cls=Group)
def lab() -> None:
    """Labs: what runs, its boot log, its end, netlab inside it.

    A LAB is named by its slot or by its session; without a name the only one is meant.
    """


@lab.command()
@which_argument
@json_option
def show(which: str | None, as_json: bool) -> None:
    """Show a lab and its devices."""
    with reading(Config.from_environment()) as transaction:
        one = find_lab(transaction, which)
    if as_json:
        output.print_json(one)
        return
    output.details(
        [
            ("Lab", one.lab_id),
            ("Topology", one.topology),
            ("Identity", one.identity),
            ("State", one.state),
            ("Slot", one.slot),
            ("Session", one.session_id),
            ("References", one.ref_count),
            ("Claimed", output.moment(one.created_at)),
            ("Up since", output.moment(one.running_at)),
            *([("Failure", one.failure)] if one.failure else []),
        ]
    )
    if one.devices:
        click.echo()
        print_devices(one.devices, with_address=True)


def print_devices(devices: Sequence[dict[str, Any]], with_address: bool) -> None:
    """A table of devices as netlab describes them."""
    headers = ["DEVICE", "KIND", "ROLE", "LINKS", "MODULES", *(["ADDRESS"] if with_address else [])]
    rows = []
    for device in devices:
        raw = device["raw"]
        modules = raw.get("module")
        interfaces = raw.get("interfaces")
        row = [
            device["name"],
            raw.get("ansible_network_os"),
            raw.get("role"),
            len([one for one in interfaces if _is_link(one)]) if isinstance(interfaces, list) else None,
            " ".join(str(one) for one in modules) if isinstance(modules, list) else None,
        ]
        rows.append([*row, raw.get("ansible_host")] if with_address else row)
    output.table(headers, rows)


def _is_link(interface: object) -> bool:
    return isinstance(interface, dict) and interface.get("type") != "loopback"


def lab_rows(labs: Sequence[LabRecord]) -> None:
    """A table of labs."""
    output.table(
        ("SLOT", "LAB", "STATE", "SESSION", "SINCE"),
        (
            (one.slot, one.topology, one.state, output.short_id(one.session_id), output.age(one.created_at))
            for one in labs
        ),
    )


@lab.command()
@which_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the boot has ended.")
def log(which: str | None, follow: bool) -> None:
    """Print the boot log of a lab; without a lab that of the last one.

    The log of a boot that failed is kept for a day.
    """
    config = Config.from_environment()
    with reading(config) as transaction:
        one = find_log(transaction, which)
    path = _place(config, one).log
    printed = _print_from(path, 0)
    if follow:
        gc.enable()  # it may stay for as long as a boot takes
    while follow and (one := _again(config, one)).state == LabState.STARTING:
        time.sleep(FOLLOW_SECONDS)
        printed = _print_from(path, printed)
    printed = _print_from(path, printed)
    if not path.exists() and not printed:
        raise click.ClickException(
            f"Lab {output.plain(one.topology)} is {one.state} and its log is gone: only that of a failed boot is kept."
        )
    if one.failure:
        click.echo(f"Lab {output.plain(one.topology)} {one.state}: {output.plain(one.failure)}", err=True)
    elif follow:
        click.echo(f"Lab {output.plain(one.topology)} is {one.state}.", err=True)


def _print_from(path: Path, offset: int) -> int:
    """Print a file from a place on, to a pipe as it is; returns where it ends now, that place when there is none."""
    terminal = sys.stdout.isatty()
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            while chunk := stream.read(_CHUNK_BYTES):
                click.echo(output.harmless(chunk.decode(errors="replace")) if terminal else chunk, nl=False)
            return stream.tell()
    except FileNotFoundError:
        return offset


def _again(config: Config, one: LabRecord) -> LabRecord:
    from remote_lab.core import overview

    with reading(config) as transaction:
        return overview.lab(transaction, one.lab_id) or one


@lab.command()
@which_argument
@click.option("--only-idle", is_flag=True, help="Refuse when somebody uses it.")
@click.option("--all", "is_all", is_flag=True, help="Every lab of a server that is stopped, on record or not.")
def destroy(which: str | None, only_idle: bool, is_all: bool) -> None:
    """Take a lab down, also while it boots; its session goes on.

    Returns when it is down.
    """
    config = Config.from_environment()
    if is_all:
        if which or only_idle:
            raise click.UsageError("--all goes with neither a lab nor --only-idle.")
        _destroy_all(config)
        return
    with reading(config) as transaction:
        one = find_lab(transaction, which)
    if one.state != LabState.STOPPING:
        with changing(config) as changes:
            changes.destroy_lab(one.session_id, force=not only_idle)
    after = until_down(config, one.lab_id)
    if not say_down(one.topology, after.failure if after else None, one.failure):
        raise SystemExit(1)


def _destroy_all(config: Config) -> None:
    from remote_lab.core.instance import find_holder
    from remote_lab.takedown import take_all_down

    if holder := find_holder(config.state_dir):
        raise click.ClickException(
            f"The server, pid {holder.pid}, runs and would boot others. Stop it first, or name a lab."
        )
    check_owner(config)
    logging.config.dictConfig(logging_config("INFO"))
    if not take_all_down(config, REASON):
        raise SystemExit(1)
    click.echo("No lab runs.")


class NetlabCommand(Command):
    """Takes nothing apart that comes after `--`: that is netlab's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            cut = args.index("--")
            args, ctx.meta[__name__] = args[:cut], tuple(args[cut + 1 :])
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "-- NETLAB ARGUMENTS..."]


@lab.command(cls=NetlabCommand)
@which_argument
@click.pass_context
def netlab(ctx: click.Context, which: str | None) -> None:
    r"""Run netlab for a running lab, on this terminal.

    \b
    remote-lab lab netlab -- status
    remote-lab lab netlab -- validate
    remote-lab lab netlab -- connect r1
    remote-lab lab netlab 2 -- exec r1 vtysh -c 'show version'

    The exit status is netlab's.
    """
    from remote_lab.app import create_runner

    arguments: tuple[str, ...] = ctx.meta.get(__name__, ())
    if not arguments:
        raise click.UsageError("Put -- before what netlab is to do: remote-lab lab netlab -- validate")
    config = Config.from_environment()
    with reading(config) as transaction:
        one = find_lab(transaction, which)
    if one.state != LabState.RUNNING:
        raise click.ClickException(f"Lab {output.plain(one.topology)} is {one.state}, netlab can look at running ones.")
    raise SystemExit(create_runner(config).netlab(_place(config, one), arguments))


def _place(config: Config, one: LabRecord) -> LabPlace:
    from remote_lab.core.workspace import Workspaces
    from remote_lab.netlab.runner import LabPlace

    workspaces = Workspaces(config.state_dir, config.max_upload_bytes, config.max_upload_files)
    directory, log = workspaces.directory(one.lab_id), workspaces.log(one.lab_id)
    return LabPlace(lab_id=one.lab_id, slot=one.slot, directory=directory, topology=one.topology, log=log)
