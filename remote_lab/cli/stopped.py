"""`remote-lab stopped`: what systemd runs when the service has ended, whatever ended it."""

from __future__ import annotations

import logging.config
import subprocess

import click

from remote_lab.cli.group import Command
from remote_lab.config import ALWAYS, NEVER, Config
from remote_lab.logs import logging_config

SYSTEMCTL_SECONDS = 10.0
REMEDY = "`remote-lab lab destroy --all` ends them"


class JobUnknown(Exception):
    """systemd does not say what it is doing with the service; the message says why."""


@click.command(cls=Command, hidden=True)
@click.option("--unit", required=True, help="Name of the service.")
@click.option("--result", required=True, help="$SERVICE_RESULT, see systemd.exec(5).")
def stopped(unit: str, result: str) -> None:
    """Take the labs of a service down that has ended, unless it starts again or they are to stay."""
    from remote_lab.takedown import take_all_down

    logging.config.dictConfig(logging_config("INFO"))
    config = Config.from_environment()
    if why := why_kept(config.keep_labs, unit, result):
        click.echo(f"Labs that run stay up for the next start: {why}.", err=True)
    elif not take_all_down(config, "the service was stopped"):
        raise SystemExit(1)


def why_kept(keep_labs: str, unit: str, result: str) -> str | None:
    """Return why labs outlive this end of the service, None when they do not.

    Args:
        keep_labs: the setting.
        unit: name of the service.
        result: how it ended, `success` or the kind of failure, after which systemd starts it again.
    """
    if keep_labs in (ALWAYS, NEVER):
        return f"REMOTE_LAB_KEEP_LABS={ALWAYS}" if keep_labs == ALWAYS else None
    try:
        job = job_type(unit)
    except JobUnknown as error:
        return f"systemd does not say whether {unit} stops or restarts ({error}); {REMEDY}"
    if job == "stop" or (job is None and result == "success"):
        return None
    return f"systemd has a {job} job for it" if job else f"it ended with the result {result}"


def job_type(unit: str) -> str | None:
    """Return what systemd is asked to do with a unit: `stop`, `restart`, ...; None when nobody asked for anything.

    A restart is one job to its end, also while the old process stops (systemctl(1), list-jobs).
    """
    command = ["systemctl", "list-jobs", "--plain", "--no-legend", "--no-pager", unit]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SYSTEMCTL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise JobUnknown(str(error)) from error
    if done.returncode != 0:
        raise JobUnknown(done.stderr.strip() or f"systemctl ended with {done.returncode}")
    jobs = [line.split() for line in done.stdout.splitlines()]
    return next((words[2] for words in jobs if len(words) >= 3 and words[1] == unit), None)
