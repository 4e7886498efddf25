"""netlab's timing and failures, and time itself, as tests want them."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import pytest

from remote_lab.core.workspace import UploadedFile
from remote_lab.errors import LabBootCancelled, LabBootFailed, LabTeardownFailed
from remote_lab.netlab.allowlist import Finding
from remote_lab.netlab.device_state import CommandOutput
from remote_lab.netlab.runner import Device, DeviceState, LabPlace

WAIT_SECONDS = 10.0


class FakeRunner:
    """netlab's timing and failures: a boot or teardown waits while its gate is closed, then does what was asked."""

    provider = "fake"

    def __init__(self) -> None:
        self.may_boot = threading.Event()
        self.may_stop = threading.Event()
        self.may_boot.set()
        self.may_stop.set()
        self.may_collect = threading.Event()
        self.may_collect.set()
        self.collecting = threading.Event()
        self.boot_began = threading.Event()
        self.dead_names: set[str] = set()
        self.key: str | None = None
        self.boot_fails = False
        self.boot_raises: Exception | None = None
        self.stop_fails = False
        self.dead: dict[str, str] = {}
        self.refused: list[Finding] = []
        self.pods: set[str] = set()
        self.is_short_of_memory = False
        self.calls: list[tuple[str, str]] = []

    @property
    def holds_labs(self) -> bool:
        return not self.refused

    def admit(self, directory: Path, topology: str) -> list[Finding]:
        return self.refused

    def boot(
        self,
        place: LabPlace,
        *,
        cancel: threading.Event,
        report_phase: Callable[[str], None],
        report_ready: Callable[[str], None],
    ) -> list[Device]:
        self.calls.append(("boot", place.lab_id))
        self.pods.add(place.lab_id)
        self.boot_began.set()
        report_phase("start")
        place.log.write_text("netlab says hello\n")
        report_ready("r1")
        while not self.may_boot.wait(0.001):
            if cancel.is_set():
                self.pods.discard(place.lab_id)
                raise LabBootCancelled("cancelled")
        if self.boot_raises is not None:
            raise self.boot_raises
        if self.boot_fails:
            self.pods.discard(place.lab_id)
            raise LabBootFailed("start", "told to", "the end of the log")
        return [Device(name="r1", raw={"name": "r1", "id": 1})]

    def stop(self, place: LabPlace) -> None:
        self.calls.append(("stop", place.lab_id))
        assert self.may_stop.wait(WAIT_SECONDS)
        if self.stop_fails:
            raise LabTeardownFailed("pid 1 is still there")
        self.pods.discard(place.lab_id)

    def probe(self, place: LabPlace) -> str | None:
        return self.dead.get(place.lab_id)

    def vanished(self, place: LabPlace) -> str | None:
        return self.dead.get(place.lab_id)

    def dead_devices(self, place: LabPlace, names: Collection[str]) -> list[str]:
        return sorted(self.dead_names & set(names))

    def status(self, place: LabPlace) -> str:
        return "r1 is running"

    def login_key(self, place: LabPlace) -> str | None:
        return self.key

    def collect(self, place: LabPlace, devices: Sequence[Device]) -> list[DeviceState]:
        self.collecting.set()
        assert self.may_collect.wait(WAIT_SECONDS)
        return [DeviceState(device.name, "frr", [CommandOutput("show", "hello\n", True)]) for device in devices]

    def has_memory(self) -> bool:
        return not self.is_short_of_memory

    def orphans(self, known_lab_ids: Collection[str]) -> list[str]:
        return sorted(self.pods - set(known_lab_ids))

    def end_orphan(self, lab_id: str) -> None:
        self.calls.append(("end orphan", lab_id))
        self.pods.discard(lab_id)


class FakeClock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def yaml_file(text: str = "nodes: [r1]\n", name: str = "demo.yml") -> UploadedFile:
    """An upload of this content."""
    return UploadedFile(name, io.BytesIO(text.encode()))


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait until something holds; the reason of a failure is `what`."""
    pause = threading.Event()
    for _ in range(int(WAIT_SECONDS * 500)):
        if condition():
            return
        pause.wait(0.002)
    pytest.fail(f"still not so after {WAIT_SECONDS:g} s: {what}")
