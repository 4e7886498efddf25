"""`remote-lab run`: a command with a lab, as it is typed. What happens then is told by `course.py`."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import click

from remote_lab.jobs.environment import read_dotenv, server_url
from remote_lab.jobs.group import Command
from remote_lab.jobs.signals import Signals

KINDS = ("ansible", "nornir", "ssh_config", "pyats")
"""What `remote_lab.client.inventory` can write; not imported for that."""

EPILOG = """\b
Exit status: that of COMMAND, 128 + n after signal n; 127 not found, 126 not executable;
  1 no lab, or it ended under the command, with a sentence on stderr; 2 wrong usage.

\b
COMMAND finds in its environment:
  REMOTE_LAB_URL, REMOTE_LAB_SESSION_ID  for clients and pytest: they join this session
  REMOTE_LAB_DEVICES      JSON: name, host, port, username, password, key_file, platform
  REMOTE_LAB_SSH_CONFIG   for ssh -F
  REMOTE_LAB_INVENTORY    for Ansible, also as ANSIBLE_INVENTORY
  REMOTE_LAB_NORNIR, REMOTE_LAB_PYATS    hosts.yaml and testbed.yaml"""

_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
_SECONDS = click.FloatRange(min=0, min_open=True)


@click.command(cls=Command, epilog=EPILOG)
@click.option("--url", metavar="URL", help="The lab host. [REMOTE_LAB_URL; without: this machine]")
@click.option("--reuse/--fresh", default=True, help="A lab that runs already will do, or boot anew. [reuse]")
@click.option("--extra-file", "extra_files", multiple=True, type=_FILE, help="Goes beside the topology; repeatable.")
@click.option("--session-timeout", type=_SECONDS, metavar="SECONDS", help="Longest time in the queue. [600]")
@click.option("--timeout", type=_SECONDS, metavar="SECONDS", help="Longest time until the lab is up. [600]")
@click.option("--purpose", metavar="TEXT", help="What those who wait are shown. [user@host: run TOPOLOGY]")
@click.option("--ci-job", metavar="ID", help="What `release` knows it by. [that of GitHub, GitLab or Jenkins]")
@click.option(
    "--inventory",
    "inventories",
    multiple=True,
    type=click.Choice(list(KINDS)),
    help="Write only this one; repeatable. [all]",
)
@click.argument("topology", type=_FILE)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@click.pass_context
def run(
    ctx: click.Context,
    url: str | None,
    reuse: bool,
    extra_files: tuple[Path, ...],
    session_timeout: float | None,
    timeout: float | None,
    purpose: str | None,
    ci_job: str | None,
    inventories: tuple[str, ...],
    topology: Path,
    command: tuple[str, ...],
) -> None:
    """Wait for a lab, run COMMAND with it, give it back.

    A token for the lab host is read from REMOTE_LAB_TOKEN only: everybody can read command lines.
    """
    # Here, so that commands that need no lab host do not pay for `requests`.
    from remote_lab.jobs.course import Course, check_command
    from remote_lab.jobs.stay import Wish

    read_dotenv()
    wish = Wish(
        url=server_url(url),
        topology=topology,
        reuse=reuse,
        extra_files=extra_files,
        inventories=inventories,
        session_timeout=session_timeout,
        acquisition_timeout=timeout,
        purpose=purpose or os.environ.get("REMOTE_LAB_PURPOSE", "").strip() or _purpose(topology),
        ci_job=ci_job,
    )
    # Before the queue: a misspelt command should not wait an hour to say so.
    check_command(command[0])
    gc.enable()  # it may stay for hours
    with Signals() as signals:
        status = Course(wish, command, signals).carry_out()
    ctx.exit(status)


def _purpose(topology: Path) -> str:
    """Who runs what, without the command, which may have secrets in it."""
    from remote_lab.client.settings import default_purpose

    return f"{default_purpose().partition(':')[0]}: run {topology.name}"
