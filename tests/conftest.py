"""What all tests have."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a test that boots real labs runs, or it has failed."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.get_closest_marker("lab") and os.getenv("CI"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped: with CI set, real-lab tests run or fail. {report.longrepr}"
    return report
