"""The spare pod: made before anybody asks for a lab, with netlab waiting in it; it serves one boot and no other.

A spare is a pod like any other, under the name of no lab: no file of a lab was ever in it. It lives by sockets that
this process holds, so the kernel ends it with us.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import SubprocessError

from remote_lab.netlab.connector import BegunCall
from remote_lab.netlab.firewall import FirewallFailed
from remote_lab.netlab.management import IpFailed, ManagementNetwork, NoFreeNetwork
from remote_lab.netlab.pod import PodFailed
from remote_lab.netlab.site import SiteFailed

logger = logging.getLogger(__name__)

_PREFIX = "spare-"
_READY_SECONDS = 60.0
_LOW_PRIORITY = 10
TROUBLES = (PodFailed, SiteFailed, FirewallFailed, IpFailed, NoFreeNetwork, OSError, SubprocessError)
"""What can go wrong while a pod is made or named."""


@dataclass(frozen=True)
class Spare:
    """A pod that waits for its lab."""

    spare_id: str
    """In the place of a lab's id."""
    network: ManagementNetwork
    pid: int
    """Its PID 1."""
    name_socket: socket.socket
    netlab: BegunCall
    """In the pod, waiting for what to boot."""

    def lives(self) -> bool:
        return self.netlab.process.poll() is None


def is_spare(lab_id: str) -> bool:
    return lab_id.startswith(_PREFIX)


class Spares:
    """Keeps one spare, from `keep` to `drop`.

    One thread makes them all and lives as long as they are used: a process in a pod ends with the thread that started
    it (PR_SET_PDEATHSIG, prctl(2)).

    Args:
        make: makes one under an id; may take long, and fail.
        discard: ends what is left under an id; never raises.
    """

    def __init__(self, make: Callable[[str], Spare], discard: Callable[[str], None]) -> None:
        self._make = make
        self._discard = discard
        self._changed = threading.Condition()
        self._is_kept = False
        self._is_wanted = False
        self._spare: Spare | None = None
        self._ids: set[str] = set()
        self._maker: threading.Thread | None = None

    def keep(self) -> None:
        """Have a spare from now on."""
        with self._changed:
            self._is_kept = self._is_wanted = True
            if self._maker is None:
                self._maker = threading.Thread(target=self._run, name="spare", daemon=True)
                self._maker.start()

    def renew(self) -> None:
        """Make a spare if there shall be one and is none; returns at once."""
        with self._changed:
            self._is_wanted = True
            self._changed.notify_all()

    def take(self) -> Spare | None:
        """Return the spare, if there is one; its id is held until `release`."""
        with self._changed:
            spare, self._spare = self._spare, None
        if spare is None or spare.lives():
            return spare
        logger.warning("The spare sandbox ended before it was needed")
        self.end(spare)
        return None

    def release(self, spare: Spare) -> None:
        """Say that nothing has the id of a spare any more."""
        self._forget(spare.spare_id)

    def _forget(self, spare_id: str) -> None:
        with self._changed:
            self._ids.discard(spare_id)

    def end(self, spare: Spare) -> None:
        """End a spare that has no lab."""
        spare.name_socket.close()
        spare.netlab.end()
        self._discard(spare.spare_id)
        self.release(spare)

    def drop(self) -> None:
        """Have no spare any more; no boot may go on in one."""
        with self._changed:
            self._is_kept = False
            maker, self._maker = self._maker, None
            self._changed.notify_all()
        if maker is not None:
            maker.join(_READY_SECONDS)

    def is_there(self) -> bool:
        with self._changed:
            return self._spare is not None

    def ids(self) -> set[str]:
        """Return the ids of spares that are there, or on their way."""
        with self._changed:
            return set(self._ids)

    def _run(self) -> None:
        while self._wait_until_wanted():
            if (spare := self._try_to_make()) is not None:
                with self._changed:
                    self._spare = spare
        with self._changed:
            spare, self._spare = self._spare, None
        if spare is not None:
            self.end(spare)

    def _wait_until_wanted(self) -> bool:
        """Return True when a spare has to be made, and False when there shall be none any more."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_kept or (self._is_wanted and self._spare is None))
            self._is_wanted = False
            return self._is_kept

    def _try_to_make(self) -> Spare | None:
        spare_id = f"{_PREFIX}{uuid.uuid4()}"
        with self._changed:
            self._ids.add(spare_id)
        spare = None
        try:
            spare = self._make(spare_id)
            _wait_until_ready(spare)
        except Exception as error:  # noqa: BLE001 - a step of a loop that must go on: boots do without a spare
            logger.warning("There is no spare sandbox, so the next boot takes longer: %s", error)
            if spare is not None:
                self.end(spare)
            else:
                self._discard(spare_id)
                self._forget(spare_id)
            return None
        return spare


def _wait_until_ready(spare: Spare) -> None:
    """Let netlab import what it needs when nobody else wants the processor; OSError when it does not get there."""
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    is_lowered = _may_raise_priority(usual)
    if is_lowered:
        _set_priority(spare.netlab.process.pid, min(usual + _LOW_PRIORITY, 19))
    spare.netlab.control.settimeout(_READY_SECONDS)
    if not spare.netlab.control.recv(1):
        output = spare.netlab.process.stdout
        said = output.read(2000).decode(errors="replace") if output is not None else ""
        raise OSError(f"netlab ended in it: {said.strip()}")
    if is_lowered:
        _set_priority(spare.netlab.process.pid, usual)


def _may_raise_priority(usual: int) -> bool:
    """Return whether a low priority can be taken back, or the lab would have it for good; tried on this thread.

    Not without CAP_SYS_NICE, which counts in the host's user namespace only (setpriority(2)): not for an ordinary user,
    in most containers not for root, and not for root of a user namespace, whatever /proc/self/status says there.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, 0, usual - 1)
    except OSError:
        return False
    os.setpriority(os.PRIO_PROCESS, 0, usual)
    return True


def _set_priority(leader: int, value: int) -> None:
    """Set how nice the processes of a group are among themselves, and all of them to others (sched(7), autogroup)."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PGRP, leader, value)
    with suppress(OSError):
        Path(f"/proc/{leader}/autogroup").write_text(str(value))
