"""The plugin's hooks. What they do lies in the modules beside it, and is imported when it is needed.

They are part of every pytest run of everybody who has the distribution installed: this module must import nothing that
pytest has not imported already, touch no disk and no network, and say nothing when no lab is in sight.

Wrappers are of the old kind (`hookwrapper`): `wrapper=True` needs pluggy 1.2, and Debian 12 has 1.0 beside pytest 7.2.
What an old wrapper raises behind its yield is a warning, so it leaves outcomes alone that are exceptions.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from remote_lab.testing.collection import in_lab_order, is_lab_test, without_two_labs
from remote_lab.testing.settings import add_options, settings_of

if TYPE_CHECKING:
    from pluggy import Result

    from remote_lab.testing.workers import Workers


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer an option for each variable."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Refuse settings that cannot be used before anything is collected; watch for failures where that is wanted."""
    settings = settings_of(config)
    if settings.artifacts or settings.hold_seconds:
        from remote_lab.testing import failures

        config.pluginmanager.register(failures, "remote-lab-failures")


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Name the server, if one is set; how busy it is follows when there are tests for it."""
    settings = settings_of(config)
    return [f"remote lab: {settings.shown_url}"] if settings.url else []


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report() -> Generator[None, Result[pytest.CollectReport]]:
    """Put a collection error in the place of each test that wants two labs."""
    outcome = yield
    if outcome.excinfo is None:
        report = outcome.get_result()
        report.result = without_two_labs(report.result)


# Not pytest_collection_modifyitems: --ff, --nf and plugins that shuffle have their say there, as wrappers around
# whatever comes late, and would tear the tests of a lab apart.
@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> Generator[None]:
    """When all others are done with the order, put the tests of a lab behind the first of them."""
    session.items[:] = in_lab_order(session.items)
    if hasattr(session.config, "workerinput") and any(map(is_lab_test, session.items)):
        from remote_lab.testing.workers import tell_controller

        tell_controller(session)
    yield


def pytest_report_collectionfinish(config: pytest.Config, items: Sequence[pytest.Item]) -> list[str]:
    """Say how busy the server is, when there are tests for it."""
    if config.option.collectonly or not any(map(is_lab_test, items)):
        return []
    from remote_lab.testing.header import standing

    return [standing(settings_of(config))]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell each xdist worker where the run keeps what its workers share."""
    _workers(node.config).welcome(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any) -> None:
    """Say how busy the server is, once, when an xdist worker has found tests for it."""
    _workers(node.config).tell_standing()


@pytest.hookimpl(optionalhook=True, hookwrapper=True)
def pytest_xdist_make_scheduler(config: pytest.Config) -> Generator[None, Result[Any]]:
    """Keep all lab tests on one xdist worker; without any, xdist's own scheduler does as it likes."""
    outcome = yield
    if outcome.excinfo is None:
        outcome.force_result(_workers(config).scheduler(outcome.get_result()))


def _workers(config: pytest.Config) -> Workers:
    from remote_lab.testing.workers import workers_of

    return workers_of(config)
