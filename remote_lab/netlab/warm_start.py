"""How `netlab up` begins in a pod: in the spare pod, where netlab waits for it, or in a new one. Knows no phases."""

from __future__ import annotations

import base64
import json
import logging
import os
import stat
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from socket import socketpair

from remote_lab.netlab import management
from remote_lab.netlab.connector import BegunCall, begin
from remote_lab.netlab.image import Images
from remote_lab.netlab.pod import COMMANDS_INSIDE, PodFailed, Pods, enter_command
from remote_lab.netlab.site import LabPlace, NetlabRequest
from remote_lab.netlab.spares import TROUBLES, Spare, Spares, is_spare

logger = logging.getLogger(__name__)

_NETLAB_BOOT = f"{COMMANDS_INSIDE}/netlab-boot"
_EMPTY_DIRECTORY = "mnt"
"""Of the image: what /lab shows before there is a lab."""
_MAX_UPLOAD_BYTES = 512 * 1024
_NUMBERS_LEFT_TO_LABS = 8
_DISCARD_SECONDS = 10.0

Files = dict[str, tuple[str, int]]


class WarmStarts:
    """The spare pod of one server, and what waits for its boot.

    Args:
        pods: of the server.
        images: give the root file system.
        environment: of netlab.
        files: what a pod in a network gets beside our package.
    """

    def __init__(
        self,
        pods: Pods,
        images: Images,
        environment: Mapping[str, str],
        files: Callable[[management.ManagementNetwork], Mapping[str, str]],
    ) -> None:
        self._pods = pods
        self._images = images
        self._environment = environment
        self._files = files
        self._spares = Spares(self._make, self._discard)
        self._taken: dict[str, tuple[Spare, Files]] = {}
        """By lab, from `open` to `begin`."""

    def keep(self) -> None:
        self._spares.keep()

    def drop(self) -> None:
        self._spares.drop()

    def is_there(self) -> bool:
        return self._spares.is_there()

    def without_spares(self, lab_ids: Collection[str]) -> list[str]:
        """Return which of these are labs, and end the spares of a process that was killed."""
        # Ours last: one that is there was on its way before, and one that was taken meanwhile has another name.
        own = self._spares.ids()
        for lab_id in lab_ids:
            if is_spare(lab_id) and lab_id not in own:
                self._discard(lab_id)
        return [lab_id for lab_id in lab_ids if not is_spare(lab_id)]

    def open(self, place: LabPlace) -> bool:
        """Give the spare to a lab; return False when there is none that fits, so that a pod has to be made."""
        files = read_upload(place.directory)
        spare = self._spares.take() if files is not None else None
        if spare is None or files is None:
            return False
        try:
            self._pods.rename(spare.network, spare.pid, spare.name_socket, spare.spare_id, place.lab_id)
        except TROUBLES as error:
            logger.warning("The spare sandbox is of no use: %s", error)
            self._pods.end(place.lab_id, deadline=_in_seconds(_DISCARD_SECONDS))
            self._spares.end(spare)
            return False
        self._spares.release(spare)
        spare.name_socket.close()
        self._taken[place.lab_id] = spare, files
        return True

    def begin(self, place: LabPlace, pid: int, calls: Sequence[NetlabRequest]) -> BegunCall:
        """Have netlab run the calls of a boot, one after the other.

        Args:
            place: of the lab, whose pod is there.
            pid: its PID 1.
            calls: two; the output of the second one goes into the result.
        Raises:
            OSError: it cannot be started.
        """
        spare, files = self._taken.pop(place.lab_id, (None, {}))
        begun = spare.netlab if spare is not None else self._enter(pid)
        request = {"files": files, "calls": [call.arguments for call in calls]}
        begun.control.settimeout(calls[0].seconds)
        # One that is dead already says why in the boot log.
        with suppress(ConnectionError):
            begun.control.sendall(json.dumps(request).encode() + b"\n")
        return begun

    def renew(self) -> None:
        """Make a new spare when the last one was taken; returns at once."""
        self._spares.renew()

    def forget(self, lab_id: str) -> None:
        """Leave no process of ours behind a lab that ended before its boot began."""
        if (taken := self._taken.pop(lab_id, None)) is not None:
            taken[0].netlab.end()

    def _enter(self, pid: int, *words: str) -> BegunCall:
        return begin(enter_command(pid, [_NETLAB_BOOT, *words]), self._environment, Path("/"))

    def _make(self, spare_id: str) -> Spare:
        image = self._images.ensure()
        directory = image / _EMPTY_DIRECTORY
        if not directory.is_dir() or any(directory.iterdir()):
            raise PodFailed(f"{directory} is no empty folder")
        network = self._pods.claim(spare_id, leave_free=_NUMBERS_LEFT_TO_LABS)
        here, there = socketpair()
        try:
            files = self._files(network)
            pid = self._pods.start(spare_id, network, image, directory, files, name_socket=there.fileno())
            return Spare(spare_id, network, pid, here, self._enter(pid, "early"))
        except BaseException:
            here.close()
            raise
        finally:
            there.close()

    def _discard(self, spare_id: str) -> None:
        try:
            left = self._pods.end(spare_id, deadline=_in_seconds(_DISCARD_SECONDS))
        except TROUBLES as error:
            left = str(error)
        if left:
            logger.warning("A spare sandbox did not end: %s", left)


def _in_seconds(seconds: float) -> float:
    return time.monotonic() + seconds


def read_upload(directory: Path) -> Files | None:
    """Return the files of an upload, path -> base64 and permission bits; None when they are too much to be sent."""
    found: Files = {}
    size = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            path = Path(folder, name)
            status = path.lstat()
            size += status.st_size
            if not stat.S_ISREG(status.st_mode) or size > _MAX_UPLOAD_BYTES:
                return None
            content = base64.b64encode(path.read_bytes()).decode()
            found[str(path.relative_to(directory))] = content, stat.S_IMODE(status.st_mode)
    return found
