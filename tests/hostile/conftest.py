"""Hostile uploads need real pods: a server, a victim and the baits are set up once for each worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hostile_stage import Stage, open_stage

from remote_lab.netlab.pod_site import missing_requirements


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A server with a victim's lab."""
    if reasons := missing_requirements():
        pytest.skip(f"real labs cannot run here: {'; '.join(reasons)}")
    with open_stage(tmp_path_factory.mktemp("hostile")) as stage:
        yield stage


@pytest.fixture
def session_id(stage: Stage) -> Iterator[str]:
    """The attacker's session; when it ends, the attacker's lab goes."""
    session_id = stage.server.open_session()
    stage.server.wait_active(session_id)
    yield session_id
    stage.end(session_id)
