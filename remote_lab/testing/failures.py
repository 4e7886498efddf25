"""What happens when a test with a lab fails: its artifacts are saved, and its lab is kept for who wants to look.

A pytest plugin of its own, registered when one of the two is wanted. What is saved is `artifacts.py`'s matter, how the
lab is kept `hold.py`'s.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from remote_lab.durations import exactly
from remote_lab.testing import artifacts
from remote_lab.testing.hold import hold
from remote_lab.testing.settings import settings_of

if TYPE_CHECKING:
    from pluggy import Result

    from remote_lab.client import DeviceInfoDto, RemoteLabClient

PROPERTY = "remote_lab_artifacts"
"""The property of JUnit's XML that names the folder."""
SECTION = "remote lab"
"""The section of the report."""

_HELD_SECONDS = pytest.StashKey[float]()
"""In the stash of the config: for how long labs have been kept in this run."""


# tryfirst: the outermost wrapper gets the report as skipping and xfail have left it. Why hookwrapper: see `hooks.py`.
@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Result[pytest.TestReport]]:
    """Attend to a failure while the test still has its lab."""
    outcome = yield
    if outcome.excinfo is not None:
        return
    report = outcome.get_result()
    if report.failed and report.when in ("setup", "call"):
        lab = _lab_of(item)
        if lab is not None:
            _stop_timer(item)
            _save(item, report, *lab)
            _hold(item, report, *lab)


def _lab_of(item: pytest.Item) -> tuple[RemoteLabClient, Sequence[DeviceInfoDto] | None] | None:
    """Return the client of a test and the devices it got; None for a test that has not come as far as to a client."""
    # Not imported: whoever has a client has imported it.
    run = sys.modules.get("remote_lab.testing.run")
    if run is not None and run.LAB_OF_TEST in item.stash:
        lab = item.stash[run.LAB_OF_TEST]
        return lab.client, lab.devices or None
    client = getattr(item, "funcargs", {}).get("remote_lab_client")
    return None if client is None else (client, None)


def _stop_timer(item: pytest.Item) -> None:
    """Tell pytest-timeout that the test is over: its time is not for what follows, a hold of minutes least of all."""
    cancel = getattr(item.config.hook, "pytest_timeout_cancel_timer", None)
    if cancel is not None:
        cancel(item=item)


def _save(
    item: pytest.Item, report: pytest.TestReport, client: RemoteLabClient, devices: Sequence[DeviceInfoDto] | None
) -> None:
    folder = settings_of(item.config).artifacts
    if folder is None:
        return
    try:
        saved = str(artifacts.save(client, devices, item.nodeid, folder))
    except OSError as error:
        report.sections.append((SECTION, f"The artifacts could not be saved: {error}"))
        return
    report.sections.append((SECTION, f"The boot log and the state of the devices are in {saved}"))
    # The report of the teardown, from which JUnit's XML is made, copies those of the test.
    item.user_properties.append((PROPERTY, saved))
    report.user_properties.append((PROPERTY, saved))


def _hold(
    item: pytest.Item, report: pytest.TestReport, client: RemoteLabClient, devices: Sequence[DeviceInfoDto] | None
) -> None:
    stash = item.config.stash
    wanted = settings_of(item.config).hold_seconds
    if not wanted or not client.session_id:
        return
    with _terminal(item.config) as say:
        if devices is None:
            try:
                devices = client.devices()
            except OSError:
                return  # no lab, nothing to look at
        left_seconds = wanted - stash.get(_HELD_SECONDS, 0.0)
        say(f"{item.nodeid} failed{_reason(report)}")
        if left_seconds < 1:
            say(f"Its lab is not kept: the {exactly(wanted)} of this run are used up.")
            return
        try:
            held_seconds = hold(client, devices, left_seconds, say)
        except KeyboardInterrupt:
            # Raised here, it would take the report of the failure with it.
            say("Ctrl-C: the lab is given back and the run ends.")
            item.session.shouldstop = "Ctrl-C while a lab was kept"
            return
        stash[_HELD_SECONDS] = stash.get(_HELD_SECONDS, 0.0) + held_seconds


def _reason(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = str(getattr(crash, "message", "")).splitlines()
    return f": {lines[0]}" if lines else "."


@contextmanager
def _terminal(config: pytest.Config) -> Iterator[Callable[[str], None]]:
    """What writes a line where people see it at once, although pytest captures."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    capture: Any = config.pluginmanager.get_plugin("capturemanager")
    # A worker of xdist has a reporter as well, whose output goes nowhere; its stderr is the controller's.
    if reporter is None or hasattr(config, "workerinput"):
        write: Callable[[str], object] = _write_to_stderr
        write("")  # the controller may be in the middle of a line
    else:
        write = partial(reporter.write_line, flush=True)
        reporter.ensure_newline()
        if reporter.verbosity < 0:
            reporter.write_line("")  # with -q it does not know that it is in the middle of a line

    def say(line: str) -> None:
        write(line if line.startswith("  ") else f"remote lab: {line}")

    with capture.global_and_fixture_disabled() if capture else nullcontext():
        yield say


def _write_to_stderr(line: str) -> None:
    os.write(2, f"{line}\n".encode(errors="backslashreplace"))
