"""`remote-lab release`: the step of a CI job that always runs and gives back what the job left."""

from __future__ import annotations

import os

import click

from remote_lab.jobs.environment import read_dotenv, server_url
from remote_lab.jobs.group import Command


@click.command(cls=Command)
@click.option("--url", metavar="URL", help="The lab host. [REMOTE_LAB_URL]")
@click.option("--ci-job", metavar="ID", help="Whose. [REMOTE_LAB_CI_JOB; that of GitHub Actions, GitLab CI or Jenkins]")
def release(url: str | None, ci_job: str | None) -> None:
    """Give back what a CI job left on the lab host: its sessions end, its labs go.

    Safe to run always, and more than once.
    """
    # Here, so that commands that need no lab host do not pay for `requests`.
    import requests

    from remote_lab.client import RemoteLabClient

    read_dotenv()
    address = server_url(url)
    if address is None:
        raise click.UsageError("No lab host: pass --url or set REMOTE_LAB_URL, for example to http://lab-host:8000.")
    job = (ci_job or os.environ.get("REMOTE_LAB_CI_JOB") or "").strip() or _recognised()
    try:
        ended = RemoteLabClient.end_ci_job(address, job)
    except requests.RequestException as error:
        raise click.ClickException(f"CI job {job} may have left something: {error}") from error
    if ended:
        click.echo(f"Ended {ended} session{'' if ended == 1 else 's'} of CI job {job}.")
    else:
        click.echo(f"Nothing is left of CI job {job}.")


def _recognised() -> str:
    from remote_lab.client.ci import recognise

    job = recognise(os.environ)
    if job is None:
        raise click.UsageError(
            "No CI job: this is neither GitHub Actions nor GitLab CI nor Jenkins. "
            "Pass --ci-job, the same as to `remote-lab run`, or set REMOTE_LAB_CI_JOB for all steps of the job."
        )
    return job.id
