from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from harness import STANDIN, Server, running, wait_until

from remote_lab.client import DeviceInfoDto, RemoteLabHTTPError, SessionGoneError
from remote_lab.testing.hold import LEASE_MARGIN_SECONDS, hold

from .failing import server, suite

__all__ = ["server", "suite"]
pytest_plugins = ["pytester"]

END_SECONDS = 30
DEVICES = [
    DeviceInfoDto("r1", {"ansible_host": "192.0.2.1", "ansible_user": "root", "ansible_password": "a b"}),
    DeviceInfoDto("r2", {"ansible_host": "192.0.2.2", "ansible_user": "root"}, key_file=Path("/tmp/keys of lab/key")),
    DeviceInfoDto("r3", {}),
]


class Run:
    """A run of pytest as a process, as somebody at a terminal or a CI job starts it."""

    def __init__(self, suite: pytest.Pytester, *arguments: str) -> None:
        self.output = suite.path / "output"
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:warnings", *arguments]
        with self.output.open("wb") as stream:
            self.process = subprocess.Popen(
                command, cwd=suite.path, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
            )

    @property
    def said(self) -> str:
        return self.output.read_text()

    def wait_for(self, text: str) -> None:
        def has_said() -> bool:
            assert text in self.said or self.process.poll() is None, self.said
            return text in self.said

        wait_until(has_said, f"pytest says {text!r}", END_SECONDS)

    def end(self) -> int:
        return self.process.wait(END_SECONDS)


@pytest.fixture
def run(suite: pytest.Pytester) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def start(*arguments: str) -> Run:
        runs.append(Run(suite, *arguments))
        return runs[-1]

    yield start
    for started in runs:
        if started.process.poll() is None:
            started.process.kill()
            started.process.wait(END_SECONDS)


@pytest.fixture
def visitor(server: Server) -> Iterator[Callable[[], str]]:
    """Opens sessions of other people, and ends them."""
    opened: list[str] = []

    def visit() -> str:
        opened.append(server.open_session())
        return opened[-1]

    yield visit
    for session_id in opened:
        server.end_session(session_id)


def test_lab_is_kept_until_somebody_waits(
    suite: pytest.Pytester, run: Callable[..., Run], server: Server, visitor: Callable[[], str]
) -> None:
    """After a failure the lab stays, it is said how to log in, and who enters the queue gets the lab at once."""
    suite.makepyfile(test_demo="def test_it(lab, capfd):\n    print('noise')\n    assert not lab, 'the reason'")
    pytest_run = run("--remote-lab-hold=10m")
    pytest_run.wait_for("The lab is kept for 10 min, until ")
    pytest_run.wait_for(" NAME ")
    assert "remote lab: test_demo.py::test_it failed: AssertionError: the reason" in pytest_run.said
    assert "@192.168." in pytest_run.said or "192.168." in pytest_run.said
    assert "# r2 (frr)" in pytest_run.said
    (lab,) = server.call("GET", "/debug/health").json()["labs"]
    assert lab["state"] == "running"
    server.wait_active(visitor())
    assert pytest_run.end() == 1
    assert "somebody waits for it." in pytest_run.said
    assert "1 failed" in pytest_run.said


def test_ctrl_c_ends_hold_and_run_in_order(suite: pytest.Pytester, run: Callable[..., Run], server: Server) -> None:
    """Ctrl-C while a lab is kept gives it back, reports the failure and runs no further test."""
    suite.makepyfile("def test_fails(lab): assert not lab, 'the reason'\ndef test_next(lab): pass")
    pytest_run = run("--remote-lab-hold=10m")
    pytest_run.wait_for(" NAME ")
    pytest_run.process.send_signal(signal.SIGINT)
    assert pytest_run.end() == 2
    assert "the reason" in pytest_run.said
    assert "1 failed" in pytest_run.said
    assert "passed" not in pytest_run.said
    assert server.call("GET", "/active-session").status_code == 404


def test_worker_of_xdist_keeps_its_lab(
    suite: pytest.Pytester, run: Callable[..., Run], visitor: Callable[[], str]
) -> None:
    """With -n the way in is seen as well, and who waits gets the lab."""
    suite.makepyfile("def test_it(lab): assert not lab, 'the reason'")
    pytest_run = run("--remote-lab-hold=10m", "-n", "1")
    pytest_run.wait_for(" NAME ")
    visitor()
    assert pytest_run.end() == 1
    assert "somebody waits for it." in pytest_run.said


def test_holds_of_a_run_are_bounded_together(suite: pytest.Pytester) -> None:
    """The time is for the whole run: who has used it up goes on at once, and so do tests that have no lab."""
    suite.makepyfile(
        """
        def test_without(): assert False
        def test_one(lab): assert not lab
        def test_two(lab): assert not lab
        def test_broken(broken_lab): pass
        """
    )
    result = suite.runpytest("--remote-lab-hold=1s")
    result.assert_outcomes(failed=3, errors=1)
    said = result.stdout.str()
    assert said.count("The lab is kept for 1 s") == 1
    assert said.count("The lab was kept for 1 s: the time is over.") == 1
    assert "test_two failed: AssertionError: assert not" in said
    assert said.count("Its lab is not kept: the 1 s of this run are used up.") == 1
    assert "test_broken failed" not in said


def test_what_is_said_has_its_own_line(suite: pytest.Pytester) -> None:
    """With -q as well, where pytest does not tell that its dots have no end of line yet."""
    suite.makepyfile("def test_fine(lab): pass\ndef test_it(lab): assert not lab")
    result = suite.runpytest("--remote-lab-hold=1s", "-q")
    result.stdout.fnmatch_lines(["remote lab: *::test_it failed: *"])


def test_timeout_of_the_test_does_not_end_the_hold(suite: pytest.Pytester) -> None:
    """The time that pytest-timeout allows a test is not used up by looking at what is left of it."""
    suite.makepyfile("def test_it(lab): assert not lab")
    result = suite.runpytest_subprocess("--remote-lab-hold=3s", "--timeout=2.5", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*The lab was kept for 3 s: the time is over.*"])
    result.stdout.no_fnmatch_line("*Timeout*")


def test_nobody_is_made_to_wait(suite: pytest.Pytester, server: Server, visitor: Callable[[], str]) -> None:
    """Whoever waits already when a test fails is not held up for a second."""
    suite.makepyfile(
        f"""
        import requests

        def test_it(lab):
            assert requests.post("{server.url}/session", timeout=10).status_code == 201
            assert not lab
        """
    )
    result = suite.runpytest("--remote-lab-hold=10m")
    result.stdout.fnmatch_lines(["*The lab is not kept: somebody waits for it.*"])
    server.end_session(server.call("GET", "/active-session").json()["session_id"])


@pytest.mark.parametrize("value", ["soon", "-5", "5 days", "15mm"])
def test_unusable_time_is_refused_with_the_remedy(suite: pytest.Pytester, value: str) -> None:
    """A time that cannot be read ends pytest before anything runs, with the value and an example."""
    suite.makepyfile("def test_it(): pass")
    result = suite.runpytest(f"--remote-lab-hold={value}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*--remote-lab-hold='{value}' cannot be used: *15m*"])


def test_lease_that_ends_first_bounds_the_hold(
    suite: pytest.Pytester, run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that lets nobody have the lab for so long is not overrun: the hold is to end before the lease."""
    with running(Server(tmp_path / "state", PROVIDER="clab", NETLAB=STANDIN, LEASE_SECONDS=150)) as short:
        monkeypatch.setenv("REMOTE_LAB_URL", short.url)
        suite.makepyfile("def test_it(lab): assert not lab")
        pytest_run = run("--remote-lab-hold=10m")
        pytest_run.wait_for(" NAME ")
        short.open_session()
        assert pytest_run.end() == 1
    assert "The lab is kept for less than was asked for: " in pytest_run.said
    assert re.search(r"The lab is kept for 1 min \d+ s, until", pytest_run.said)


class Client:
    """What `hold` asks of a client, without a server; `waiting` answers in turn, an exception is raised."""

    def __init__(self, *waiting: Any, lease_seconds: float | None = None, possible_seconds: int | None = None) -> None:
        self.answers = list(waiting)
        self.lease = None if lease_seconds is None else datetime.now(UTC) + timedelta(seconds=lease_seconds)
        self.possible_seconds = possible_seconds
        self.extended: list[float] = []

    def waiting(self) -> int | None:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def lease_expires_at(self) -> datetime | None:
        return self.lease

    def extend(self, seconds: float) -> None:
        if self.possible_seconds is not None and seconds > self.possible_seconds:
            detail = f"A lease of {seconds:g} s is too long: at most {self.possible_seconds} s are possible now."
            raise refused(RemoteLabHTTPError, detail)
        self.extended.append(seconds)
        self.lease = datetime.now(UTC) + timedelta(seconds=seconds)

    def inventory(self, kind: str) -> Path:
        return Path("/tmp/a folder") / kind


def refused(kind: type[RemoteLabHTTPError], detail: str) -> RemoteLabHTTPError:
    answer = requests.Response()
    answer.request = requests.Request("GET", "http://lab-host:8000").prepare()
    return kind(detail, answer, detail=detail)


def held(client: Client, seconds: float = 600.0) -> list[str]:
    """What is said, where a second of the hold passes at once."""
    said: list[str] = []
    hold(client, DEVICES, seconds, said.append, sleep=lambda seconds: None)
    return said


def test_ways_in_are_lines_for_a_shell() -> None:
    """Each device has its line, with its key or its password; the one without an address says so."""
    said = held(Client(0, 1))
    (one,) = [line for line in said if "# r1 (unknown), password 'a b'" in line]
    assert one.strip().startswith("ssh -p 22 ")
    (two,) = [line for line in said if line.endswith("# r2 (unknown)")]
    assert two.strip().startswith("ssh -i '/tmp/keys of lab/key' -p 22 ")
    assert "  r3 (unknown): Device 'r3' has no address to log in to." in said
    assert any("ssh -F '/tmp/a folder/ssh_config' NAME" in line for line in said)


def test_server_that_does_not_say_who_waits_is_named_so() -> None:
    """With an older server the hold lasts for its time, and says that it cannot know who waits."""
    said = held(Client(None), seconds=0.01)
    assert any("does not say whether somebody waits" in line for line in said)
    assert said[-1].endswith("the time is over.")


def test_session_that_ends_ends_the_hold() -> None:
    """When the session is gone there is nothing left to keep, and the reason is said."""
    said = held(Client(0, requests.ConnectionError(), 0, refused(SessionGoneError, "ended by an operator")))
    assert said[-1].endswith("the session is gone (ended by an operator).")


def test_lease_is_extended_for_the_hold() -> None:
    """A lease that ends before the hold is moved behind it; one that ends later, or none, is left alone."""
    short, long, none = Client(0, 1, lease_seconds=60), Client(0, 1, lease_seconds=3600), Client(0, 1)
    for client in (short, long, none):
        assert "kept for 10 min" in " ".join(held(client))
    assert (short.extended, long.extended, none.extended) == ([600 + LEASE_MARGIN_SECONDS], [], [])


def test_lease_is_extended_as_far_as_the_server_allows() -> None:
    """Where the server's limit is nearer than the hold's end, the lease goes there and the hold ends before it."""
    client = Client(0, 1, lease_seconds=60, possible_seconds=200)
    said = held(client)
    assert client.extended == [199]
    assert "less than was asked for" in said[0]
    assert "kept for 2 min 49 s" in said[1]


def test_lease_that_is_over_leaves_no_time() -> None:
    """Nothing is kept when the session has to be given back anyway."""
    (said,) = held(Client(0, lease_seconds=10, possible_seconds=10))
    assert "is about to end" in said
