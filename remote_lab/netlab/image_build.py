"""Builds a root file system from Debian packages and Python wheels, as root or as an ordinary user; knows no recipe.

An ordinary user builds it in a user namespace, so that its owners are the user's subordinate ids. mmdebstrap does the
same by itself, but only where those ids may go, which a home folder is not: it writes an archive, and we unpack that.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from remote_lab.errors import ImageUnavailable
from remote_lab.netlab import mirrors
from remote_lab.netlab.rootless import commands, subids

logger = logging.getLogger(__name__)

NETLAB_DIRECTORY = "opt/netlab"
_STEP_SECONDS = 1800
_ERROR_LINES = 15
_WARM_UP = "from netsim.utils import read; read.system_defaults()"


@dataclass(frozen=True)
class Ingredients:
    """What goes into an image."""

    suite: str
    packages: tuple[str, ...]
    requirements: tuple[str, ...]
    """Of netlab, each with its version."""
    python_version: str
    """Of the suite's Python, for which netlab's packages are fetched."""
    mirror: str | None
    """Debian mirror; None: the host's own, else mmdebstrap's default."""


def check() -> None:
    """Raise ImageUnavailable when this user cannot build images on this host."""
    if shutil.which("mmdebstrap", path=subids.PATH) is None:
        raise ImageUnavailable(
            "The lab image cannot be built: mmdebstrap is missing. Install it with "
            "`apt-get install mmdebstrap debian-archive-keyring`."
        )
    if os.geteuid() != 0 and (lacks := subids.lacks()):
        raise ImageUnavailable(f"The lab image cannot be built by {subids.user_name()}: {'; '.join(map(str, lacks))}.")


def build(root: Path, ingredients: Ingredients) -> None:
    """Build an image.

    Args:
        root: of its file system; does not exist yet.
        ingredients: what goes into it.
    Raises:
        ImageUnavailable: a step failed; the message names it, with its last words.
    """
    logger.info("Lab image: installing Debian packages")
    _install_debian(root, ingredients)
    logger.info("Lab image: installing netlab")
    _install_netlab(root, ingredients)
    _run_step(_as_owner("chmod", "755", str(root)), name="chmod")  # whatever the umask made of it


def write(path: Path, text: str) -> None:
    """Write a file of an image that is being built."""
    _run_step(_as_owner("tee", str(path)), stdin=text, name="writing to it")


def move(image: Path, target: Path) -> None:
    """Give an image another place on the same file system, in one step."""
    _run_step(_as_owner("mv", "--no-target-directory", str(image), str(target)), name="moving it")


def remove(folder: Path) -> None:
    """Remove an image, or what was built of one."""
    _run_step(_as_owner("rm", "-rf", "--one-file-system", str(folder)), name="removing it")


def _install_debian(root: Path, ingredients: Ingredients) -> None:
    keyring = [f"--keyring={mirrors.KEYRING}"] if mirrors.KEYRING.exists() else []
    leave_out = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "locale", "info")]
    options = ["--variant=minbase", f"--include={','.join(ingredients.packages)}", *keyring, *leave_out]
    mirror = ingredients.mirror or mirrors.host_mirror()
    source = [mirror] if mirror else []
    if os.geteuid() == 0:
        _run_step(["mmdebstrap", *options, "--format=directory", ingredients.suite, str(root), *source])
        return
    _run_step(_as_owner("mkdir", str(root)), name="mkdir")
    archive = ["mmdebstrap", *options, "--mode=unshare", "--format=tar", ingredients.suite, "-", *source]
    # Device nodes cannot be made in a user namespace; a pod has a /dev of its own.
    unpack = _as_owner("tar", "-x", "-p", "--numeric-owner", "--exclude=./dev/*", "-C", str(root))
    _run_step(["bash", "-c", f"set -o pipefail; {shlex.join(archive)} | {shlex.join(unpack)}"], name="mmdebstrap")


def _install_netlab(root: Path, ingredients: Ingredients) -> None:
    """Install netlab from outside, compile it and read its defaults once, which it then finds in its cache."""
    target = root / NETLAB_DIRECTORY
    wheels = ("--python-version", ingredients.python_version, "--only-binary=:all:", "--no-deps", "--no-compile")
    options = ("--quiet", "--disable-pip-version-check", "--root-user-action=ignore", "--target", str(target))
    pip = _as_owner(sys.executable, "-m", "pip", "install", *options, *wheels, *ingredients.requirements)
    _run_step(pip, name="pip")
    inside = ["/usr/bin/env", "-i", "HOME=/root", "PATH=/usr/bin:/bin", f"PYTHONPATH=/{NETLAB_DIRECTORY}"]
    for words in (("-m", "compileall", "-q", f"/{NETLAB_DIRECTORY}"), ("-c", _WARM_UP)):
        _run_step(_as_owner("chroot", str(root), *inside, "python3", *words), name=f"python3 {words[0]} in the image")


def _as_owner(*command: str) -> list[str]:
    """Return the argument list that runs a command as who owns the files of images."""
    if os.geteuid() == 0:
        return list(command)
    try:
        return commands.as_root_of_ids(command)
    except commands.NoSubIds as error:
        raise ImageUnavailable(f"The lab image cannot be touched by {subids.user_name()}: {error}.") from error


def _run_step(command: Sequence[str], *, stdin: str | None = None, name: str | None = None) -> None:
    path = f"{os.environ.get('PATH', '')}:{subids.PATH}"  # a user's lacks the folders of chroot and mmdebstrap's tools
    result = subprocess.run(
        command,
        input=stdin or "",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PATH": path},
        text=True,
        errors="replace",
        timeout=_STEP_SECONDS,
        check=False,
    )
    if result.returncode:
        tail = "\n".join(result.stdout.splitlines()[-_ERROR_LINES:])
        raise ImageUnavailable(
            f"The lab image cannot be built or changed: {name or command[0]} failed with status {result.returncode}. "
            f"REMOTE_LAB_IMAGE_MIRROR names another Debian mirror. Its last words:\n{tail}"
        )
