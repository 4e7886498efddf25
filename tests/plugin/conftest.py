"""Suites of their own for the plugin, as the entry point loads it, beside a real server with a stand-in for netlab."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from harness import STANDIN, WITHOUT_FOREIGN_PLUGINS, Server, running, wait_until

CONFTEST = """
from remote_lab.testing.fixture import remote_lab_fixture

ring = remote_lab_fixture("ring.yml", reuse_lab=True)
star = remote_lab_fixture("star.yml", name="a label", reuse_lab=True)
"""

FOUR_TESTS = """
def test_1(ring): assert [device.name for device in ring] == ["r1"]
def test_2(star): assert [device.name for device in star] == ["r1", "r2"]
def test_3(ring): assert [device.name for device in ring] == ["r1"]
def test_4(star): assert [device.name for device in star] == ["r1", "r2"]
"""
"""A suite of 4 tests on 2 topologies."""


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing that inner runs could take for theirs: no lab host, server, proxy, CI job, xdist, home."""
    foreign = ("REMOTE_LAB_", "PYTEST_", "GITHUB_", "GITLAB_", "CI_", "JENKINS_", "BUILD_")
    kept = ("REMOTE_LAB_IMAGE_DIR", "PYTEST_ADDOPTS")
    for name in [name for name in os.environ if name.startswith(foreign) and name not in kept]:
        monkeypatch.delenv(name)
    for name in ("CI", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REMOTE_LAB_JOIN", "0")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def pytester(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """As pytest has it, without the plugins that it takes back in."""
    monkeypatch.setenv("PYTEST_ADDOPTS", WITHOUT_FOREIGN_PLUGINS)
    return pytester


class LabHost:
    """A running server, and what its netlab was asked for."""

    def __init__(self, server: Server, calls: Path) -> None:
        self.server = server
        self.url = server.url
        self._calls = calls

    def boots(self) -> list[str]:
        """The topologies that were booted in this test, in order."""
        calls = [json.loads(line)["argv"] for line in self._calls.read_text().splitlines()]
        return [Path(argv[-1]).name for argv in calls if argv[0] == "up"]

    def sessions(self) -> int:
        """How many sessions there are."""
        return int(self.server.call("GET", "/debug/health").json()["sessions"])

    def forget(self) -> None:
        """Begin anew, without sessions and labs."""
        while (head := self.server.call("GET", "/active-session")).status_code == 200:
            self.server.end_session(head.json()["session_id"])
        self.server.wait_quiet()
        self._calls.write_text("")

    def wait_for_lab(self) -> None:
        """Wait until a lab is up and somebody uses it."""
        wait_until(lambda: self._lab_states() == ["running"], "a lab runs")

    def _lab_states(self) -> list[str]:
        return [lab["state"] for lab in self.server.call("GET", "/debug/health").json()["labs"]]


@pytest.fixture(scope="module")
def lab_host_of_module(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHost]:
    """A server with the module's SERVER_SETTINGS."""
    folder = tmp_path_factory.mktemp("server")
    settings = {"PROVIDER": "clab", "NETLAB": STANDIN, **getattr(request.module, "SERVER_SETTINGS", {})}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STANDIN_CALLS", str(folder / "calls"))
        with running(Server(folder / "state", **settings)) as server:
            yield LabHost(server, folder / "calls")


@pytest.fixture
def lab_host(lab_host_of_module: LabHost) -> Iterator[LabHost]:
    """A running server without sessions and labs, whose netlab is a stand-in."""
    lab_host_of_module.forget()
    yield lab_host_of_module
    lab_host_of_module.forget()


class Suite:
    """A folder with two topologies, a conftest with a fixture for each, and tests."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path = pytester.path
        (self.path / "ring.yml").write_text("nodes: [r1]\n")
        (self.path / "star.yml").write_text("nodes: [r1, r2]\n")
        self.conftest(CONFTEST)

    def conftest(self, code: str) -> None:
        self.pytester.makeconftest(code)

    def tests(self, code: str = "", **modules: str) -> None:
        """Write `test_suite.py`, or the modules that are named."""
        self.pytester.makepyfile(**({"test_suite": code} if code else {}), **modules)

    def run(self, *arguments: object) -> pytest.RunResult:
        """A run in a process of its own."""
        return self.pytester.runpytest_subprocess("-p", "no:cacheprovider", "-v", *arguments, timeout=100)

    @contextmanager
    def started(self, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
        """A run that is not waited for, the leader of a process group; what it prints is in `output`."""
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", *map(str, arguments)]
        with self.output.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=self.path, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    @property
    def output(self) -> Path:
        return self.path.parent / "output.txt"

    def order(self, *arguments: object) -> list[str]:
        """Names of the tests in the order in which they would run."""
        result = self.pytester.runpytest_inprocess("--collect-only", "-q", *arguments)
        return [line.split("::")[-1] for line in result.outlines if "::" in line]


@pytest.fixture
def suite(pytester: pytest.Pytester) -> Suite:
    return Suite(pytester)


def passed(result: pytest.RunResult) -> list[str]:
    """Names of the tests that passed, in the order in which they ran."""
    words = [line.replace("PASSED", " PASSED ").split() for line in result.outlines if "PASSED" in line]
    return [next(word for word in line if "::" in word).rpartition("::")[2] for line in words]
