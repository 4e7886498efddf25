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
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

from filelock import FileLock

from remote_lab.errors import ImageUnavailable
from remote_lab.netlab import image_build, processes
from remote_lab.netlab.image_build import NETLAB_DIRECTORY
from remote_lab.netlab.rootless import keepers

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
_REQUIREMENTS = "netlab-requirements.txt"
_MANIFEST = "etc/remote-lab-image.json"
_PARTIAL_PREFIX = ".partial-"


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
            if not (self._chosen / NETLAB_DIRECTORY / "netsim").is_dir():
                raise ImageUnavailable(
                    f"REMOTE_LAB_IMAGE={str(self._chosen)!r} is no root file system "
                    f"with netlab in /{NETLAB_DIRECTORY}. Unset it to have one built."
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
        image_build.check()
        for partial in self.image_dir.glob(f"{_PARTIAL_PREFIX}*"):
            image_build.remove(partial)
        target = self.image_dir / recipe_name()
        logger.info("Building the lab image %s: Debian %s with FRR and netlab, a minute or two", target, _SUITE)
        began = time.monotonic()
        partial = Path(tempfile.mkdtemp(prefix=_PARTIAL_PREFIX, dir=self.image_dir))
        try:
            root = partial / "root"
            image_build.build(root, self._ingredients())
            image_build.write(root / _MANIFEST, _manifest())
            image_build.move(root, target)
        finally:
            with suppress(ImageUnavailable):  # the next build tries again
                image_build.remove(partial)
        logger.info("Built the lab image %s in %.0f s", target, time.monotonic() - began)
        return target.resolve()

    def _ingredients(self) -> image_build.Ingredients:
        return image_build.Ingredients(
            suite=_SUITE,
            packages=_PACKAGES,
            requirements=tuple(_requirements()),
            python_version=_PYTHON_VERSION,
            mirror=self._mirror,
        )

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
        if _labs_run():
            raise ImageUnavailable("Labs are running on this host; an image is removed only when none does.")
        with FileLock(self.image_dir / ".lock"):
            doomed = Path(tempfile.mkdtemp(prefix=_PARTIAL_PREFIX, dir=self.image_dir))
            image_build.move(path, doomed / "root")
            image_build.remove(doomed)


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


def _manifest() -> str:
    return json.dumps({"recipe": _recipe(), "built_at": datetime.now(UTC).isoformat()})


def _labs_run() -> bool:
    if os.geteuid() == 0:
        return any(processes.pod_processes())
    return any(keepers.own_keepers())


def _size_bytes(path: Path) -> int:
    sizes = {}
    for directory, _, names in os.walk(path):
        for name in names:
            status = (Path(directory) / name).lstat()
            sizes[status.st_ino] = status.st_blocks * 512
    return sum(sizes.values())
