"""How a run ends whose tests are silent, interrupted or killed, and what others in the queue notice of it."""

from __future__ import annotations

import os
import signal
import time

import pytest
from harness import wait_until

from .conftest import LabHost, Suite

pytest_plugins = ["pytester"]

STALE_SECONDS = 3.0
SERVER_SETTINGS = {"ACTIVE_SECONDS": STALE_SECONDS, "WAITING_SECONDS": 600, "REAPER_SECONDS": 0.2}

SLOW_TEST = "import time\n\ndef test_slow(ring): time.sleep(60)"


@pytest.fixture(autouse=True)
def _url(lab_host: LabHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMOTE_LAB_URL", lab_host.url)


@pytest.mark.parametrize(("heartbeat", "outcome"), [("0.5", "passed"), ("60", "failed")])
def test_silence(suite: Suite, lab_host: LabHost, heartbeat: str, outcome: str) -> None:
    """A test body that is silent for twice the time that a server waits keeps its lab, because the heartbeat speaks."""
    suite.tests(
        f"""
        import time

        def test_silent(ring, remote_lab_client):
            time.sleep({2 * STALE_SECONDS})
            assert remote_lab_client.devices() == ring
        """
    )
    suite.run(f"--remote-lab-heartbeat={heartbeat}").assert_outcomes(**{outcome: 1})


@pytest.mark.parametrize("xdist", [(), ("-n1",)], ids=["one process", "xdist"])
def test_sigkill(suite: Suite, lab_host: LabHost, xdist: tuple[str, ...]) -> None:
    """A run that is killed loses its lab to the next in line after the stale time, and no sooner."""
    suite.tests(SLOW_TEST)
    with suite.started("--remote-lab-heartbeat=0.2", *xdist) as run:
        lab_host.wait_for_lab()
        killed = lab_host.server.call("GET", "/active-session").json()["session_id"]
        waiting = lab_host.server.open_session()
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        killed_at = time.monotonic()
    lab_host.server.wait_active(waiting)
    # The last heartbeat may be 0.2 s older than the kill.
    assert STALE_SECONDS - 0.5 < time.monotonic() - killed_at < STALE_SECONDS + 5
    assert "silent for" in lab_host.server.call("GET", f"/session/{killed}").json()["detail"]


@pytest.mark.parametrize("xdist", [(), ("-n2",)], ids=["one process", "xdist"])
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_interruption(suite: Suite, lab_host: LabHost, ending: signal.Signals, xdist: tuple[str, ...]) -> None:
    """Ctrl-C gives the session back at once, and so does SIGTERM, by which CI systems cancel a job."""
    suite.tests(SLOW_TEST)
    with suite.started(*xdist) as run:
        lab_host.wait_for_lab()
        os.killpg(run.pid, ending)
        assert run.wait(30) == pytest.ExitCode.INTERRUPTED, suite.output.read_text()
    assert lab_host.sessions() == 0
    assert "INTERNALERROR" not in suite.output.read_text()


@pytest.mark.parametrize("xdist", [(), ("-n2",)], ids=["one process", "xdist"])
def test_sigterm_of_one_process(suite: Suite, lab_host: LabHost, xdist: tuple[str, ...]) -> None:
    """A job that is cancelled by telling only the process that it started leaves nothing either."""
    suite.tests(SLOW_TEST)
    with suite.started(*xdist) as run:
        lab_host.wait_for_lab()
        run.send_signal(signal.SIGTERM)
        assert run.wait(60) == pytest.ExitCode.INTERRUPTED, suite.output.read_text()
    assert lab_host.sessions() == 0


def test_sigterm_is_left_to_tests_that_use_it(suite: Suite, lab_host: LabHost) -> None:
    """A handler of a test is not replaced, and hears it."""
    suite.tests(
        """
        import os, signal

        def test_it(ring):
            heard = []
            signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
            os.kill(os.getpid(), signal.SIGTERM)
            assert heard
        """
    )
    suite.run().assert_outcomes(passed=1)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_interruption_in_the_queue(suite: Suite, lab_host: LabHost, ending: signal.Signals) -> None:
    """Ctrl-C and SIGTERM while the run waits for its turn give its place back."""
    holder = lab_host.server.open_session()
    suite.tests(SLOW_TEST)
    with suite.started() as run:
        wait_until(lambda: lab_host.sessions() == 2, "the run is in the queue")
        lab_host.server.status(holder)
        os.killpg(run.pid, ending)
        assert run.wait(30) == pytest.ExitCode.INTERRUPTED, suite.output.read_text()
    assert lab_host.sessions() <= 1


@pytest.mark.parametrize("xdist", [(), ("-n2",)], ids=["one process", "xdist"])
def test_stop_at_the_first_failure(suite: Suite, lab_host: LabHost, xdist: tuple[str, ...]) -> None:
    """`-x` gives everything back."""
    suite.tests("def test_1(ring): assert 0\ndef test_2(ring): pass")
    suite.run("-x", *xdist)
    assert lab_host.sessions() == 0
    assert lab_host.boots() == ["ring.yml"]
