"""A manager on a real database built by the migrations, with a runner that boots nothing and does as it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import WAIT_SECONDS, FakeClock, FakeRunner

from remote_lab.config import Config
from remote_lab.core.db import Database
from remote_lab.core.liveness import Liveness
from remote_lab.core.manager import LabManager
from remote_lab.core.reaper import Reaper


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(state_dir=tmp_path)


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def make_manager(config: Config, runner: FakeRunner, clock: FakeClock) -> Iterator[Callable[[], LabManager]]:
    """Make managers on the same state, as restarts of the server do."""
    made: list[LabManager] = []

    def make() -> LabManager:
        database = Database(config.database)
        database.upgrade()
        manager = LabManager(config, database, runner)
        manager.sessions_seen, manager.desk.used = Liveness(clock), Liveness(clock)
        made.append(manager)
        return manager

    yield make
    runner.may_stop.set()
    for manager in made:
        manager.boots.end_all("the test is over", WAIT_SECONDS)
        manager.database.dispose()


@pytest.fixture
def manager(make_manager: Callable[[], LabManager]) -> LabManager:
    return make_manager()


@pytest.fixture
def reaper(manager: LabManager) -> Reaper:
    return Reaper(manager)
