"""Suites without a server that is named: the plugin brings one to this machine, and takes it away whatever happens."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from harness import STANDIN, command_line, list_labs, processes_named, wait_until

from .conftest import CONFTEST, FOUR_TESTS, Suite, passed

pytest_plugins = ["pytester"]

SLOW_TEST = "import time\n\ndef test_slow(ring): time.sleep(60)"


class Here:
    """What this machine has of the servers and labs of a test: all have one of its folders in their command line."""

    def __init__(self, calls: Path, *folders: Path) -> None:
        self._calls = calls
        self._folders = folders

    def boots(self) -> list[str]:
        """The topologies that were booted, in order."""
        calls = [json.loads(line)["argv"] for line in self._calls.read_text().splitlines()]
        return [Path(argv[-1]).name for argv in calls if argv[0] == "up"]

    def labs(self) -> list[str]:
        """The labs that are up now."""
        return [lab for database in self._find("remote-lab.sqlite3") for lab in list_labs(database.parent)]

    def left(self) -> list[str]:
        """What is left of runs: processes, states of servers, folders."""
        processes = [pid for folder in self._folders for pid in processes_named(str(folder)) if pid != os.getpid()]
        folders = [*self._find("remote-lab.sqlite3"), *self._find("remote-lab-run-*")]
        return [*map(command_line, processes), *map(str, folders)]

    def wait_clean(self) -> None:
        """Return when nothing is left; fail with what is."""
        try:
            wait_until(lambda: not self.left(), "everything is gone", 60)
        except AssertionError as error:
            logs = [log.read_text()[-2000:] for log in self._find("*.log")]
            raise AssertionError("\n".join([f"{error}; left are", *self.left(), *logs])) from None

    def _find(self, name: str) -> list[Path]:
        # Not Path.rglob: of Python 3.11 and 3.12 it fails where a folder goes meanwhile.
        walks = (os.walk(folder) for folder in self._folders)
        found = (Path(at, one) for walk in walks for at, folders, files in walk for one in (*folders, *files))
        return [path for path in found if path.match(name)]


@pytest.fixture
def here(suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    """Nobody else's server, and a netlab that is a stand-in."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "calls").touch()
    for name in ("TMPDIR", "PYTEST_DEBUG_TEMPROOT"):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setenv("STANDIN_CALLS", str(folder / "calls"))
    monkeypatch.setenv("PATH", f"{STANDIN.parent / 'clab'}:{os.environ['PATH']}")
    monkeypatch.setenv("REMOTE_LAB_PROVIDER", "clab")
    monkeypatch.setenv("REMOTE_LAB_NETLAB", str(STANDIN))
    return Here(folder / "calls", folder, suite.path)


@pytest.mark.parametrize("xdist", [(), ("-n2",), ("-n2", "--dist=each")], ids=["one process", "xdist", "each"])
def test_four_tests_on_two_topologies(suite: Suite, here: Here, xdist: tuple[str, ...]) -> None:
    """The same suite as on a server: each topology boots once, in order, and nothing is left."""
    suite.tests(FOUR_TESTS)
    result = suite.run(*xdist)
    runs = 2 if "--dist=each" in xdist else 1
    assert sorted(passed(result)) == sorted(runs * ["test_1", "test_3", "test_2", "test_4"])
    assert here.boots() == runs * ["ring.yml", "star.yml"]
    assert here.left() == []
    assert result.outlines.count("remote lab: local") == 1


def test_no_server_without_lab_tests(suite: Suite, here: Here) -> None:
    """Where no test needs a lab, nothing is started and nothing is said."""
    suite.tests("def test_plain(): pass")
    result = suite.run()
    result.assert_outcomes(passed=1)
    assert "remote lab" not in result.stdout.str()


@pytest.mark.parametrize("xdist", [(), ("-n2",)], ids=["one process", "xdist"])
def test_where_no_labs_can_run(
    suite: Suite, here: Here, monkeypatch: pytest.MonkeyPatch, xdist: tuple[str, ...]
) -> None:
    """Tests that need a lab are skipped with what `remote-lab doctor` says, or fail with it when labs are required."""
    monkeypatch.setenv("PATH", os.environ["PATH"].partition(":")[2])
    suite.tests("def test_1(ring): pass\ndef test_2(star): pass\ndef test_plain(): pass")
    result = suite.run("-rs", *xdist)
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(["SKIPPED*provider clab: missing: containerlab*"])
    for required in (["--remote-lab-required"], []):
        result = suite.run(*required, *xdist)
        result.assert_outcomes(passed=1, errors=2)
        result.stdout.fnmatch_lines(["provider clab: missing: containerlab*"])
        monkeypatch.setenv("REMOTE_LAB_REQUIRED", "1")
    assert here.left() == []


@pytest.mark.parametrize("xdist", [(), ("-n2",)], ids=["one process", "xdist"])
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals(suite: Suite, here: Here, ending: signal.Signals, xdist: tuple[str, ...]) -> None:
    """Ctrl-C, SIGTERM and SIGKILL of all of a run's processes leave nothing, neither a process nor a lab."""
    suite.tests(SLOW_TEST)
    with suite.started(*xdist) as run:
        wait_until(lambda: here.labs() and run.poll() is None, "a lab is up")
        os.killpg(run.pid, ending)
        run.wait(60)
        here.wait_clean()


def test_sigkill_of_the_controller_alone(suite: Suite, here: Here) -> None:
    """A controller that is killed takes its workers, the server and the labs with it."""
    suite.tests(SLOW_TEST)
    with suite.started("-n2") as run:
        wait_until(here.labs, "a lab is up")
        run.kill()
        run.wait(60)
        here.wait_clean()


@pytest.mark.parametrize(
    ("test", "arguments"),
    [
        ("def test_1(ring): assert 0\ndef test_2(ring): pass", ["-x"]),
        ("import os\n\ndef test_1(ring): os._exit(3)", []),
        ("import os\n\ndef test_1(ring): os._exit(3)\n\ndef test_2(star): pass", ["-n2"]),
        ("import os, signal\n\ndef test_1(ring): os.kill(os.getpid(), signal.SIGSEGV)", []),
        ("def test_1(ring, request): request.config.pluginmanager.hook = None", ["-n1"]),
    ],
    ids=["-x", "os._exit", "os._exit under xdist", "a crash", "a broken pytest"],
)
def test_bad_ends(suite: Suite, here: Here, test: str, arguments: list[str]) -> None:
    """However a run ends, nothing is left of its server and its labs."""
    suite.tests(test)
    suite.run(*arguments)
    assert "ring.yml" in here.boots()
    here.wait_clean()


@pytest.mark.lab
def test_a_real_lab(suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a server, a test of this machine gets real routers, and they are gone with the run."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (suite.path / "ring.yml").write_text("provider: netns\ndefaults.device: frr\nnodes: [r1, r2]\nlinks: [r1-r2]\n")
    suite.conftest(CONFTEST)
    suite.tests(
        """
        import socket

        def test_login(ring):
            for device in ring:
                with socket.create_connection((device.host, device.port), timeout=10) as connection:
                    assert connection.recv(4) == b"SSH-"
            open("addresses.txt", "w").write(" ".join(device.host for device in ring))
        """
    )
    suite.run().assert_outcomes(passed=1)
    assert len((suite.path / "addresses.txt").read_text().split()) == 2
    assert not list(tmp_path.rglob("remote-lab-run-*"))
    assert not processes_named(str(tmp_path))
