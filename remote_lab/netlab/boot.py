"""One boot: its phases, the calls of netlab in them, what they leave, and what netlab says the devices are.

Where it runs is behind `site.Site`; who asked for it, and what becomes of what fails, is `runner.py`'s matter.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote_lab.errors import LabBootCancelled, LabBootFailed
from remote_lab.netlab.answers import plain, read_json
from remote_lab.netlab.connector import Ending, NetlabResult
from remote_lab.netlab.netns.lab import up_name
from remote_lab.netlab.site import LabPlace, NetlabRequest, Site, SiteFailed

_LOG_TAIL_BYTES = 16384
_LOG_TAIL_LINES = 40
_MAX_DEVICES = 4096
PHASES = ("pod", "create", "start", "config", "devices")
"""Of a boot, in their order."""
# What `netlab up` prints when a step begins (netlab 26.10, netsim/cli/up.py) -> our name of the phase.
_PHASE_LINES = {
    "Checking virtualization provider": "start",
    "Deploying initial device configurations": "config",
}
# `netlab inspect` evaluates an expression over the transformed topology. This one gives for every managed node what
# `netlab inspect --node NAME` prints (netlab 26.10, netsim/cli/inspect.py), in one call; colons and equal signs mean
# something else to `--format`. Nothing that comes from a user may ever get into it.
_DEVICES_EXPRESSION = (
    "__import__('box').BoxList([[name,"
    "__import__('netsim.outputs.common').outputs.common.adjust_inventory_host(node,defaults,None,None,True)"
    "+dict([['_netlab_version',_netlab_version]])]"
    " for name,node in nodes.items() if not node.get('unmanaged')])"
)
_DEVICES_CALL = ("inspect", "--quiet", "--format", "json", _DEVICES_EXPRESSION)


@dataclass(frozen=True)
class Device:
    """A node of a running lab."""

    name: str
    raw: dict[str, Any]
    """Exactly what `netlab inspect --node NAME` prints."""


@dataclass
class Boot:
    """One boot: the steps, each within what is left of the deadline."""

    site: Site
    place: LabPlace
    deadline: float
    cancel: threading.Event
    report_phase: Callable[[str], None]
    report_ready: Callable[[str], None] = lambda name: None
    phase: str = ""
    not_ready: set[str] | None = None
    """Nodes of which the boot has not said that they are up; None before anybody knows which nodes there are."""

    def run(self) -> list[Device]:
        self._enter("pod")
        try:
            self.site.open(self.place)
            self._enter("create")
            devices = self._bring_up()
            self.site.reach(self.place, _management_addresses(devices))
            return devices
        except (SiteFailed, OSError, ValueError, RecursionError) as error:
            raise self._failure(str(error)) from error

    def run_without_nodes(self) -> list[Device]:
        """The same as far as nothing of the lab is started."""
        self._enter("pod")
        try:
            self.site.open(self.place)
            self._enter("create")
            create = self._request(("create", *self.site.topology_arguments(self.place)))
            self._check(self.site.netlab(self.place, create), "netlab create")
            return self._read_devices()
        except (SiteFailed, OSError, ValueError, RecursionError) as error:
            raise self._failure(str(error)) from error

    def _bring_up(self) -> list[Device]:
        up = self._request(("up", *self.site.topology_arguments(self.place)), on_line=self._follow)
        then = self._request(_DEVICES_CALL, capture=True)
        result = self.site.netlab_up(self.place, up, then, lambda: self._enter("devices"))
        self._check(result, "netlab inspect" if self.phase == "devices" else "netlab up")
        return read_devices(result.output)

    def _read_devices(self) -> list[Device]:
        result = self.site.netlab(self.place, self._request(_DEVICES_CALL, capture=True))
        self._check(result, "netlab inspect")
        return read_devices(result.output)

    def _enter(self, phase: str) -> None:
        if self.cancel.is_set():
            raise LabBootCancelled("nobody wants the lab any more")
        self.phase = phase
        self.report_phase(phase)

    def _follow(self, line: str) -> None:
        for beginning, phase in _PHASE_LINES.items():
            if beginning in line and PHASES.index(phase) > PHASES.index(self.phase):
                self._enter(phase)
        # Code of the lab may print the same: it counts once for each node there is.
        if self.phase == "start" and (name := up_name(line.strip())) is not None:
            if self.not_ready is None:
                self.not_ready = set(self.site.node_names(self.place))
            if name in self.not_ready:
                self.not_ready.remove(name)
                self.report_ready(name)

    def _request(
        self, arguments: tuple[str, ...], *, capture: bool = False, on_line: Callable[[str], None] | None = None
    ) -> NetlabRequest:
        seconds = max(self.deadline - time.monotonic(), 0.0)
        return NetlabRequest(arguments, seconds, capture=capture, cancel=self.cancel, on_line=on_line)

    def _check(self, result: NetlabResult, what: str) -> None:
        if result.ending is Ending.CANCELLED:
            raise LabBootCancelled("nobody wants the lab any more")
        if result.ending is Ending.DEADLINE:
            raise self._failure("it took longer than the server allows and was ended")
        if not result.succeeded:
            raise self._failure(f"{what} ended with status {result.exit_status}")

    def _failure(self, reason: str) -> LabBootFailed:
        reason = "; ".join([plain(reason), *self.site.exceeded(self.place)])
        return LabBootFailed(self.phase, reason, read_log_tail(self.place.log))


def read_devices(text: str) -> list[Device]:
    """Read what the devices expression printed: a list of pairs of name and data.

    Raises:
        ValueError: it is something else; in a pod anything may have been printed.
    """
    match read_json(text):
        case [*pairs] if len(pairs) <= _MAX_DEVICES:
            return [_read_device(pair) for pair in pairs]
    raise ValueError("netlab inspect printed no list of devices")


def _management_addresses(devices: Sequence[Device]) -> list[str]:
    found = (device.raw.get("mgmt") for device in devices)
    addresses = (management.get("ipv4") for management in found if isinstance(management, dict))
    return [address for address in addresses if isinstance(address, str)]


def _read_device(pair: object) -> Device:
    match pair:
        case [str(name), dict(raw)] if name == plain(name):
            return Device(name, raw)
    raise ValueError("netlab inspect printed something that is no device")


def read_log_tail(log: Path) -> str:
    """Return the last lines of a boot log, empty when there is none."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
            text = stream.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(plain(text).splitlines()[-_LOG_TAIL_LINES:])
