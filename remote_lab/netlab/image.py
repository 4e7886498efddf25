"""The root file system that pods and nodes run on: find it, build it, list and remove what was built.

Built once per recipe, kept in a folder named by the recipe's hash, shared by all servers of the host. Our own code is
no part of it: a pod brings that along.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

from filelock import FileLock

from remote_lab.errors import ImageUnavailable
from remote_lab.netlab import mirrors
from remote_lab.netlab.processes import pod_processes

logger = logging.getLogger(__name__)

_SUITE = "trixie"
_PYTHON_VERSION = "3.13"
"""Of Debian trixie: netlab's packages are fetched for it."""
_PACKAGES = (
    "bird2",
    "dnsmasq-base",
    "dropbear-bin",
    "frr",
    "frr-pythontools",
    "iproute2",
    "iputils-ping",
    "kmod",
    "net-tools",
    "openssh-client",
    "openssl",
    "procps",
    "python3",
    "rsyslog",
    "sshpass",
    "tcpdump",
    "traceroute",
    "util-linux",
    "wireguard-tools",
)
_LAYOUT = 1
"""Raised when a step below changes in a way that nothing else of the recipe shows."""
_NETLAB_DIRECTORY = "opt/netlab"
_REQUIREMENTS = "netlab-requirements.txt"
_MANIFEST = "etc/remote-lab-image.json"
_PARTIAL_PREFIX = ".partial-"
_STEP_SECONDS = 1800
_ERROR_LINES = 15
_WARM_UP = "from netsim.utils import read; read.system_defaults()"


@dataclass(frozen=True)
class ImageInfo:
    """A built image."""

    name: str
    path: Path
    size_bytes: int
    built_at: datetime
    is_current: bool
    """Built by the recipe of this version: new labs run on it."""


class Images:
    """The images of this host.

    Args:
        image_dir: where built ones lie.
        mirror: Debian mirror to build from; None: the host's own, else mmdebstrap's default.
        chosen: a root file system to be used instead of a built one.
    """

    def __init__(self, image_dir: Path, *, mirror: str | None = None, chosen: str | None = None) -> None:
        self.image_dir = image_dir
        self._mirror = mirror
        self._chosen = Path(chosen) if chosen else None

    def find(self) -> Path | None:
        """Return the image that labs run on, None when it has not been built yet.

        Raises:
            ImageUnavailable: the chosen one cannot be used.
        """
        if self._chosen is not None:
            if not (self._chosen / _NETLAB_DIRECTORY / "netsim").is_dir():
                raise ImageUnavailable(
                    f"REMOTE_LAB_IMAGE={str(self._chosen)!r} is no root file system "
                    f"with netlab in /{_NETLAB_DIRECTORY}. Unset it to have one built."
                )
            return self._chosen.resolve()
        path = self.image_dir / recipe_name()
        return path.resolve() if path.is_dir() else None

    def ensure(self) -> Path:
        """Return the image that labs run on; build it when it is missing.

        Raises:
            ImageUnavailable: it cannot be built; the message names the step, its last words and what to do.
        """
        return self.find() or self.build()

    def build(self) -> Path:
        """Build the image of this recipe, unless it is there, also by another server that was faster.

        Raises:
            ImageUnavailable: see `ensure`.
        """
        try:
            self.image_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            with FileLock(self.image_dir / ".lock"):
                return self.find() or self._build()
        except OSError as error:
            raise ImageUnavailable(f"The lab image cannot be built in {self.image_dir}: {error}.") from error

    def _build(self) -> Path:
        _check_tools()
        for partial in self.image_dir.glob(f"{_PARTIAL_PREFIX}*"):
            shutil.rmtree(partial)
        target = self.image_dir / recipe_name()
        logger.info("Building the lab image %s: Debian %s with FRR and netlab, a minute or two", target, _SUITE)
        began = time.monotonic()
        partial = Path(tempfile.mkdtemp(prefix=_PARTIAL_PREFIX, dir=self.image_dir))
        try:
            root = partial / "root"
            self._install_debian(root)
            _install_netlab(root)
            (root / _MANIFEST).write_text(json.dumps({"recipe": _recipe(), "built_at": datetime.now(UTC).isoformat()}))
            root.chmod(0o755)
            root.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        logger.info("Built the lab image %s in %.0f s", target, time.monotonic() - began)
        return target.resolve()

    def _install_debian(self, root: Path) -> None:
        logger.info("Lab image: installing Debian packages")
        mirror = self._mirror or mirrors.host_mirror()
        keyring = [f"--keyring={mirrors.KEYRING}"] if mirrors.KEYRING.exists() else []
        options = ["--variant=minbase", "--format=directory", f"--include={','.join(_PACKAGES)}", *keyring]
        leave_out = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "locale", "info")]
        _run_step("mmdebstrap", [*options, *leave_out, _SUITE, str(root), *([mirror] if mirror else [])])

    def all(self) -> list[ImageInfo]:
        """Return the built images, the newest first."""
        found = [self._info(path) for path in self.image_dir.glob("*") if (path / _MANIFEST).is_file()]
        return sorted(found, key=lambda image: image.built_at, reverse=True)

    def _info(self, path: Path) -> ImageInfo:
        built_at = datetime.fromisoformat(json.loads((path / _MANIFEST).read_text())["built_at"])
        return ImageInfo(path.name, path, _size_bytes(path), built_at, is_current=path.name == recipe_name())

    def remove(self, name: str) -> None:
        """Remove a built image.

        Raises:
            ImageUnavailable: there is none of that name, or labs run on this host, which need theirs.
        """
        path = self.image_dir / name
        if name not in {image.name for image in self.all()}:
            raise ImageUnavailable(f"There is no image {name!r} in {self.image_dir}.")
        if any(pod_processes()):
            raise ImageUnavailable("Labs are running on this host; an image is removed only when none does.")
        with FileLock(self.image_dir / ".lock"):
            doomed = Path(tempfile.mkdtemp(prefix=_PARTIAL_PREFIX, dir=self.image_dir))
            path.rename(doomed / "root")
            shutil.rmtree(doomed)


def recipe_name() -> str:
    """Return the name of the image that this version builds."""
    return f"{_SUITE}-{hashlib.sha256(_recipe().encode()).hexdigest()[:12]}"


def _recipe() -> str:
    parts = {
        "layout": _LAYOUT,
        "machine": platform.machine(),
        "suite": _SUITE,
        "packages": _PACKAGES,
        "requirements": _requirements(),
    }
    return json.dumps(parts, sort_keys=True)


def _requirements() -> list[str]:
    text = resources.files(__package__).joinpath(_REQUIREMENTS).read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def _check_tools() -> None:
    if os.geteuid() != 0:
        raise ImageUnavailable("The lab image can be built by root only: run `sudo remote-lab image build`.")
    if shutil.which("mmdebstrap") is None:
        raise ImageUnavailable(
            "The lab image cannot be built: mmdebstrap is missing. Install it with "
            "`apt-get install mmdebstrap debian-archive-keyring`."
        )


def _install_netlab(root: Path) -> None:
    """Install netlab from outside, compile it and read its defaults once, which it then finds in its cache."""
    logger.info("Lab image: installing netlab")
    target = root / _NETLAB_DIRECTORY
    wheels = ("--python-version", _PYTHON_VERSION, "--only-binary=:all:", "--no-deps", "--no-compile")
    options = ("--quiet", "--disable-pip-version-check", "--root-user-action=ignore", "--target", str(target))
    _run_step(sys.executable, ["-m", "pip", "install", *options, *wheels, *_requirements()])
    inside = ["/usr/bin/env", "-i", "HOME=/root", "PATH=/usr/bin:/bin", f"PYTHONPATH=/{_NETLAB_DIRECTORY}"]
    _run_step("chroot", [str(root), *inside, "python3", "-m", "compileall", "-q", f"/{_NETLAB_DIRECTORY}"])
    _run_step("chroot", [str(root), *inside, "python3", "-c", _WARM_UP])


def _run_step(program: str, arguments: Sequence[str]) -> None:
    result = subprocess.run(
        [program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=_STEP_SECONDS,
        check=False,
    )
    if result.returncode:
        tail = "\n".join(result.stdout.splitlines()[-_ERROR_LINES:])
        raise ImageUnavailable(
            f"The lab image cannot be built: {Path(program).name} {arguments[0]} failed with status "
            f"{result.returncode}. REMOTE_LAB_IMAGE_MIRROR names another Debian mirror. Its last words:\n{tail}"
        )


def _size_bytes(path: Path) -> int:
    sizes = {}
    for directory, _, names in os.walk(path):
        for name in names:
            status = (Path(directory) / name).lstat()
            sizes[status.st_ino] = status.st_blocks * 512
    return sum(sizes.values())
