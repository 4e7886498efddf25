"""Which CI job this process belongs to, by what the CI system puts into the environment. Nobody is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ID_CHARACTERS_MAX = 200
"""What a server takes; a clean-up step of the same job cuts at the same place."""


@dataclass(frozen=True)
class CiJob:
    """A job of a CI system."""

    id: str
    """What a clean-up step names it by; the same in each step of the job, another in every other job."""
    url: str | None = None
    """Where people look at it."""


def recognise(environ: Mapping[str, str]) -> CiJob | None:
    """Return the job of GitHub Actions, GitLab CI or Jenkins that these variables describe, None without one.

    Variables as in docs.github.com "Variables reference", docs.gitlab.com "Predefined CI/CD variables reference" and
    the page `env-vars.html` of a Jenkins.
    """
    job = _github(environ) or _gitlab(environ) or _jenkins(environ)
    return None if job is None else CiJob("".join(filter(str.isprintable, job.id))[:ID_CHARACTERS_MAX], job.url)


def _github(environ: Mapping[str, str]) -> CiJob | None:
    run = environ.get("GITHUB_RUN_ID")
    if not run or environ.get("GITHUB_ACTIONS") != "true":
        return None
    attempt = environ.get("GITHUB_RUN_ATTEMPT") or "1"
    # The jobs of a matrix differ in nothing but the runner.
    job_id = ".".join([run, attempt, environ.get("GITHUB_JOB", ""), environ.get("RUNNER_NAME", "")])
    server, repository = environ.get("GITHUB_SERVER_URL"), environ.get("GITHUB_REPOSITORY")
    if not server or not repository:
        return CiJob(job_id)
    return CiJob(job_id, f"{server}/{repository}/actions/runs/{run}/attempts/{attempt}")


def _gitlab(environ: Mapping[str, str]) -> CiJob | None:
    job_id = environ.get("CI_JOB_ID")
    return CiJob(job_id, environ.get("CI_JOB_URL") or None) if job_id and environ.get("GITLAB_CI") else None


def _jenkins(environ: Mapping[str, str]) -> CiJob | None:
    build = environ.get("BUILD_TAG")
    return CiJob(build, environ.get("BUILD_URL") or None) if build and environ.get("JENKINS_URL") else None
