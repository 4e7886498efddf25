"""Where a lab runs: the steps of `runner.py` that differ between a pod and the bare host.

A site knows nothing of phases, boots or logs of failures.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from remote_lab.netlab.connector import MAX_CAPTURE_BYTES, NetlabResult
from remote_lab.netlab.device_state import Collected, Wanted


@dataclass(frozen=True)
class LabPlace:
    """Where one lab is, from the moment its slot is claimed until nothing of it is left."""

    lab_id: str
    """uuid4; tags what runs of the lab, so that it is found again."""
    slot: int
    """From 1."""
    directory: Path
    """Absolute; holds the topology and its extra files; netlab's working directory."""
    topology: str
    """File name relative to `directory`."""
    log: Path
    """Boot log, outside `directory`; only ever appended to."""


@dataclass(frozen=True)
class NetlabRequest:
    """One call of netlab for one lab."""

    arguments: tuple[str, ...]
    seconds: float
    capture: bool = False
    """Standard output goes into the result, not into the boot log."""
    quiet: bool = False
    """Nothing goes into the boot log."""
    capture_bytes: int = MAX_CAPTURE_BYTES
    cancel: threading.Event | None = None
    on_line: Callable[[str], None] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class ForegroundCall:
    """A call of netlab with the operator's own terminal."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path


class SiteFailed(Exception):
    """A site could not make room for a lab; the message says why."""


class Site(Protocol):
    """The bare host or a pod per lab."""

    provider: str
    """The netlab provider whose labs run here."""

    def prepare(self) -> None:
        """Check and set up what all labs need.

        Raises:
            ProviderUnavailable, ImageUnavailable: the server cannot run labs here.
        """

    def shutdown(self) -> None:
        """Undo `prepare`; labs are not touched."""

    def open(self, place: LabPlace) -> None:
        """Make room for a lab.

        Raises:
            SiteFailed: there is no room; what was made of it is gone or goes with `close`.
        """

    def reach(self, place: LabPlace, addresses: Collection[str]) -> None:
        """Make the devices of a lab that came up reachable from this host, where they are not by themselves.

        Args:
            place: of the lab.
            addresses: management addresses that the lab says its devices have.
        Raises:
            SiteFailed: they are not reachable.
        """

    def topology_arguments(self, place: LabPlace) -> tuple[str, ...]:
        """Return what `netlab up` and `netlab create` need to be told of the lab.

        Raises:
            SiteFailed: the place is not open.
        """

    def foreground_call(self, place: LabPlace, arguments: Sequence[str]) -> ForegroundCall:
        """Return how an operator's netlab command is run for a lab.

        Raises:
            SiteFailed: nothing of the lab runs.
        """

    def netlab(self, place: LabPlace, request: NetlabRequest) -> NetlabResult:
        """Run netlab for a lab.

        Raises:
            SiteFailed: the place is not open.
        """

    def netlab_up(
        self, place: LabPlace, up: NetlabRequest, then: NetlabRequest, on_then: Callable[[], None]
    ) -> NetlabResult:
        """Run `netlab up` for a lab and, when that succeeded, another call, whose output is captured.

        Args:
            place: of the lab; nothing of it runs.
            up: the first call; its deadline and its `cancel` count for both.
            then: the second one.
            on_then: told when the second one begins.
        Returns:
            how the last one ended.
        Raises:
            SiteFailed: the place is not open.
        """

    def keep_spare(self) -> None:
        """Have at hand what the next boot can use, from now on; returns at once. Of no use to who does not boot."""

    def has_spare(self) -> bool:
        """Return whether a boot that begins now would find it."""

    def drop_spare(self) -> None:
        """Give it up; returns when it is gone."""

    def node_names(self, place: LabPlace) -> Collection[str]:
        """Return the nodes of a lab that starts, where its boot log tells which are up; empty where it does not."""

    def login_key(self, place: LabPlace) -> str | None:
        """Return the private key that logs in to the nodes of a lab; None when it has none of its own."""

    def collect(self, place: LabPlace, wanted: Wanted, *, seconds: float) -> Collected:
        """Run commands on the devices of a lab, one after the other on each of them, for so long at most.

        Returns:
            what was said; devices that were not reached are left out.
        Raises:
            SiteFailed, OSError: none was reached.
        """

    def exceeded(self, place: LabPlace) -> list[str]:
        """Return which of its limits a lab has hit, as sentences; empty where that is not known."""

    def close(self, place: LabPlace, *, deadline: float) -> str | None:
        """End whatever runs of a lab, in any state it may be in; does nothing when nothing runs.

        Args:
            place: of the lab.
            deadline: by `time.monotonic()`.
        Returns:
            what is still there at the deadline, as a sentence, otherwise None.
        """

    def probe(self, place: LabPlace) -> str | None:
        """Return None when the lab runs, otherwise the reason why not."""

    def vanished(self, place: LabPlace) -> str | None:
        """The same as far as it can be seen in milliseconds, without netlab; None when it cannot."""

    def dead_nodes(self, place: LabPlace, names: Collection[str]) -> list[str]:
        """Return which of these nodes of a running lab are gone for good; empty where only netlab could tell."""

    def orphans(self, known_lab_ids: Collection[str]) -> list[str]:
        """Return the labs of this server that run here though nobody knows them."""

    def end_orphan(self, lab_id: str, *, deadline: float) -> str | None:
        """End one of them; the result is that of `close`."""
