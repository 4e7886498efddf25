"""Starts `launch.py`: commands in a user namespace, and the question whether this host lets this user have pods."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from remote_lab.netlab.rootless import subids
from remote_lab.netlab.rootless.subids import SubIds

PROJECT = Path(__file__).parents[3]
ENVIRONMENT = {"PATH": subids.PATH, "LANG": "C.UTF-8"}
_PROBE_SECONDS = 20
_LAUNCH = "import sys; sys.path.insert(0, sys.argv[1]); from remote_lab.netlab.rootless.launch import main; main()"


class NoSubIds(Exception):
    """This user has no subordinate ids; the message says how to get some."""


def own_ids() -> SubIds:
    """Return the ids that this user's pods have.

    Raises:
        NoSubIds: there are none.
    """
    found = subids.find()
    if found is None:
        raise NoSubIds("; ".join(map(str, subids.lacks())))
    return found


def launch_command(verb: str, ids: SubIds, *arguments: str) -> list[str]:
    """Return the argument list that runs a verb of `launch.py`."""
    # -I -S: nothing of the server's environment or packages.
    return [sys.executable, "-I", "-S", "-c", _LAUNCH, str(PROJECT), verb, *ids.arguments, *arguments]


def missing_requirements() -> list[str]:
    """Return what keeps this user from having pods, as sentences with the remedy; empty when nothing does."""
    if lacks := subids.lacks():
        return [str(lack) for lack in lacks]
    reason = why_no_pod()
    return [] if reason is None else [f"{reason} ({remedy()})"]


@cache
def why_no_pod() -> str | None:
    """Try what a pod is made of, for this user, once for each process; return why it cannot be had.

    Raises:
        NoSubIds: it cannot be tried.
    """
    try:
        result = subprocess.run(
            launch_command("probe", own_ids()),
            capture_output=True,
            text=True,
            env=ENVIRONMENT,
            cwd="/",
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"user namespaces cannot be tried: {error}"
    reason = result.stdout.strip() or ("" if result.returncode == 0 else result.stderr.strip()[-500:])
    return f"a user namespace with mounts cannot be had: {reason}" if reason else None


def remedy() -> str:
    """Return what to do about what `why_no_pod` says."""
    return subids.apparmor_remedy() or (
        "in a container: run it with user namespaces allowed and /proc not masked, or use the host itself"
    )


def as_root_of_ids(command: Sequence[str]) -> list[str]:
    """Return the argument list that runs a command as who owns the files of this user's subordinate ids.

    Raises:
        NoSubIds: there are none.
    """
    return launch_command("run", own_ids(), *command)
