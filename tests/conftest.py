"""What all tests have."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator

import pytest
from harness import WITHOUT_FOREIGN_PLUGINS
from spread import spread

os.environ["PYTEST_ADDOPTS"] = WITHOUT_FOREIGN_PLUGINS


def pytest_configure() -> None:
    """Let tests press Ctrl-C and close terminals: a run in the background, as CI may have it, ignores these signals."""
    for signum, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(signum) == signal.SIG_IGN:
            signal.signal(signum, handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers, let what takes long begin first."""
    if workers := os.getenv("PYTEST_XDIST_WORKER_COUNT"):
        items[:] = spread(items, int(workers))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a test that boots real labs runs, or it has failed."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.get_closest_marker("lab") and os.getenv("CI"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped: with CI set, real-lab tests run or fail. {report.longrepr}"
    return report
