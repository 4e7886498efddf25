"""What a client was told, by argument, by environment, or by what is known of this process. No request is made here."""

from __future__ import annotations

import getpass
import math
import os
import socket
import sys
from pathlib import Path

from remote_lab.client.ci import CiJob, recognise

REQUEST_TIMEOUT_SECONDS = 30.0
SESSION_TIMEOUT_SECONDS = 600.0
LAB_ACQUISITION_TIMEOUT_SECONDS = 600.0
PURPOSE_CHARACTERS_MAX = 200


def text(argument: str | None, name: str) -> str | None:
    """Return the argument, else `REMOTE_LAB_<name>`; None when neither says anything."""
    said = argument if argument is not None else os.environ.get(f"REMOTE_LAB_{name}", "")
    return said.strip() or None


def timeout_seconds(argument: float | None, name: str, default: float) -> float:
    """Return the argument, else `REMOTE_LAB_<name>`, else the default; raise ValueError for an unusable variable."""
    if argument is not None:
        return argument
    said = text(None, name)
    try:
        seconds = default if said is None else float(said)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ValueError(f"REMOTE_LAB_{name}={said!r} cannot be used: expected a number of seconds above 0.")
    return seconds


def ci_job(argument: str | None) -> CiJob | None:
    """Return the job named by argument or REMOTE_LAB_CI_JOB, else the one this process runs in, None without one."""
    recognised = recognise(os.environ)
    told = text(argument, "CI_JOB")
    if told is None:
        return recognised
    return CiJob(told, None if recognised is None else recognised.url)


def introduction(purpose: str | None, job: CiJob | None) -> dict[str, str]:
    """Return the JSON of `POST /session`: what others are told of who holds the lab."""
    said = {"purpose": text(purpose, "PURPOSE") or default_purpose()}
    if job is not None:
        said["ci_job_id"] = job.id
        # A CI system with an odd address costs nobody the lab.
        if job.url is not None and job.url.startswith(("http://", "https://")) and len(job.url) <= 500:
            said["ci_job_url"] = job.url
    return said


def default_purpose() -> str:
    """Return `user@host: command`, without the command's arguments, which may be secret."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = f"uid {os.getuid()}"
    command = Path(sys.argv[0]).name if sys.argv and sys.argv[0] not in ("", "-c", "-m") else "python"
    said = f"{user}@{socket.gethostname()}: {command}"
    return "".join(filter(str.isprintable, said))[:PURPOSE_CHARACTERS_MAX]
