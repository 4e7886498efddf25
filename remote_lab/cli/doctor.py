"""`remote-lab doctor`: can this host run labs, and what to do when it cannot.

What labs need of the host is looked at by `Runner.doctor()`; here it is joined by what the server needs beside that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from remote_lab.cli import output
from remote_lab.cli.group import Command, json_option
from remote_lab.cli.records import database_path, has_database, reading
from remote_lab.config import Config, read_settings
from remote_lab.errors import DatabaseUnusable, InstanceRunning, RemoteLabError, SettingInvalid

if TYPE_CHECKING:
    from remote_lab.netlab.runner import Finding

POD_PROVIDER = "netns"


@click.command(cls=Command)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address that serve is to use.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="Port that it is to use.")
@json_option
def doctor(host: str, port: int, as_json: bool) -> None:
    """Show what this host can and cannot run, and what to do about it.

    Changes nothing. Exit status 0 when labs can run here, 1 when they cannot.
    """
    from remote_lab.app import create_runner

    config, findings = _settings()
    findings += [*_state(config), *_database(config), *_address(config, host, port)]
    examined = create_runner(config).doctor()
    providers = _providers(config, examined)
    healthy = all(finding.ok for finding in findings if finding.required)
    can_run = healthy and bool(providers)
    everything = [*findings, *examined]
    if as_json:
        output.print_json({"labs_can_run": can_run, "providers": providers, "findings": everything})
    else:
        _print(everything, providers if can_run else [])
    raise SystemExit(0 if can_run else 1)


def _settings() -> tuple[Config, list[Finding]]:
    """The settings as far as they can be used, the default for the others."""
    from remote_lab.netlab.runner import Finding

    settings = read_settings()
    wrong = [one for one in settings if one.problem]
    usable = {one.variable: one.text for one in settings if one.text is not None and not one.problem}
    findings = [
        Finding(
            f"setting {one.variable}",
            False,
            f"{one.text!r} ({one.source}) cannot be used",
            f"Set it to {one.problem}, or remove it.",
        )
        for one in wrong
    ]
    if not wrong:
        findings = [Finding("settings", True, "all can be used, remote-lab config shows them", "")]
    return Config.from_environment(usable), findings


def _state(config: Config) -> Iterator[Finding]:
    from remote_lab.core.workspace import storage_problem
    from remote_lab.netlab.runner import Finding

    name, folder = "state", config.state_dir
    if not os.access(folder, os.F_OK):  # unlike Path.exists() no error when this user may not know
        above = next(one for one in folder.parents if os.access(one, os.F_OK))
        allowed = os.access(above, os.W_OK)
        remedy = "" if allowed else "Set REMOTE_LAB_STATE_DIR to a folder that the server's user can make."
        yield Finding(name, allowed, f"{folder} will be made" if allowed else f"{folder} cannot be made here", remedy)
        return
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        remedy = "Become the user that the server runs as, or set REMOTE_LAB_STATE_DIR to another folder."
        yield Finding(name, False, f"{folder} is no folder that user {os.geteuid()} can write", remedy)
        return
    problem = storage_problem(folder)
    yield Finding(name, problem is None, f"{folder}: {problem}" if problem else str(folder), problem or "")


def _database(config: Config) -> Iterator[Finding]:
    from remote_lab.core import backup, overview, schema
    from remote_lab.netlab.runner import Finding

    name = "database"
    path = database_path(config)
    try:
        if not has_database(config):
            yield Finding(name, True, f"{path} will be made", "")
            return
        found = schema.examine(path)
        if found.problem is not None:
            yield Finding(name, False, f"{path} cannot be used: {output.plain(found.problem)}", backup.remedy(path))
            return
        if found.is_old:
            yield Finding(name, True, f"{path}, of an earlier version, will be upgraded", "")
            return
        with reading(config) as transaction:
            count = len(overview.queue(transaction))
    except DatabaseUnusable as error:
        yield Finding(name, False, str(error), "")
        return
    yield Finding(name, True, f"{path}, {count} session{'' if count == 1 else 's'} in the queue", "")


def _address(config: Config, host: str, port: int) -> Iterator[Finding]:
    from remote_lab.core.instance import find_holder
    from remote_lab.netlab.runner import Finding
    from remote_lab.server import bind

    name = "address"
    try:
        holder = find_holder(config.state_dir)
    except (InstanceRunning, SettingInvalid) as error:
        yield Finding("server", False, str(error), "See remote-lab status.")
        return
    if holder is not None:
        yield Finding("server", True, f"runs on http://{holder.address}, pid {holder.pid} of {holder.user}", "")
        return
    try:
        bind(host, port).close()
    except RemoteLabError as error:
        yield Finding(name, False, str(error), f"ss -ltnp 'sport = :{port}' shows who has it.")
        return
    yield Finding(name, True, f"{host}:{port} is free", "")


def _providers(config: Config, examined: Sequence[Finding]) -> list[str]:
    """The providers that could run labs, of those that the settings allow."""
    able = [one.name.removeprefix("provider ") for one in examined if one.name.startswith("provider ") and one.ok]
    if all(one.ok for one in examined if one.required):
        able.insert(0, POD_PROVIDER)
    match config.provider:
        case "auto":
            return [one for one in able if one in (POD_PROVIDER, "clab")][:1]
        case wanted:
            return [one for one in able if one == wanted]


def _print(findings: Sequence[Finding], providers: Sequence[str]) -> None:
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = "ok  " if finding.ok else "FAIL" if finding.required else "-   "
        click.echo(f"{mark}  {finding.name.ljust(width)}  {output.plain(finding.detail)}")
        if not finding.ok and finding.remedy:
            click.echo(f"{' ' * (width + 8)}-> {output.plain(finding.remedy)}")
    if providers:
        click.echo(f"\nLabs can run here, with the provider {providers[0]}.")
    else:
        click.echo("\nLabs cannot run here: the lines with FAIL say why, and those with -> what to do.")
