"""Suites whose tests fail, on a real server process with the stand-in for netlab."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness import STANDIN, Server, running

CONFTEST = """
from remote_lab.testing.fixture import remote_lab_fixture

lab = remote_lab_fixture("demo.yml")
broken_lab = remote_lab_fixture("broken.yml")
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    state_dir = tmp_path_factory.mktemp("server") / "state"
    with running(Server(state_dir, PROVIDER="clab", NETLAB=STANDIN)) as server:
        yield server


@pytest.fixture
def suite(pytester: pytest.Pytester, server: Server, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """An empty suite with a lab of two devices and one that does not boot."""
    server.wait_quiet()
    monkeypatch.setenv("REMOTE_LAB_URL", server.url)
    (pytester.path / "demo.yml").write_text("nodes: [ r1, r2 ]\nstandin:\n  device: frr\n")
    (pytester.path / "broken.yml").write_text("nodes: [ r1 ]\nstandin:\n  up_fails: true\n")
    pytester.makeconftest(CONFTEST)
    return pytester
