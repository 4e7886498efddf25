"""Suites with labs of a server that is named: what tests get, what is said, and what is given back."""

from __future__ import annotations

import pytest
from client.fake_peer import FakePeer, Reply
from harness import free_port

from .conftest import CONFTEST, FOUR_TESTS, LabHost, Suite, passed

pytest_plugins = ["pytester"]


@pytest.fixture(autouse=True)
def _url(lab_host: LabHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMOTE_LAB_URL", lab_host.url)


def test_four_tests_on_two_topologies(suite: Suite, lab_host: LabHost) -> None:
    """Each topology boots once, tests of a lab run one after another, and the session ends with the run."""
    suite.tests(FOUR_TESTS)
    result = suite.run()
    assert passed(result) == ["test_1", "test_3", "test_2", "test_4"]
    assert lab_host.boots() == ["ring.yml", "star.yml"]
    assert lab_host.sessions() == 0
    lines = [line for line in result.outlines if line.startswith("remote lab:")]
    assert lines == [f"remote lab: {lab_host.url}", f"remote lab: {lab_host.url}, position 0, clab"]


def test_the_first_lab_of_the_run_comes_with_its_session(suite: Suite, lab_host: LabHost) -> None:
    """That of the first test that will run, so that it can boot while the run waits."""
    suite.tests(FOUR_TESTS)
    suite.run("--deselect", "test_suite.py::test_1", "-k", "test_2 or test_4").assert_outcomes(passed=2, deselected=2)
    kept = {path.name for path in lab_host.server.state_dir.glob("uploads/*/lab/*")}
    assert kept >= {"star.yml"}


def test_a_fresh_lab_for_each_test(suite: Suite, lab_host: LabHost) -> None:
    """Unless its fixture allows to share it, a test gets a lab that nobody has used; also after a failure."""
    suite.conftest(CONFTEST.replace(", reuse_lab=True", ""))
    suite.tests("def test_1(ring): assert 0\ndef test_2(ring): pass")
    suite.run().assert_outcomes(passed=1, failed=1)
    assert lab_host.boots() == ["ring.yml", "ring.yml"]


def test_the_client_of_the_run(suite: Suite, lab_host: LabHost) -> None:
    """Tests share one client; it knows the devices that a lab fixture yields; after a test its lab is released."""
    suite.tests(
        """
        seen = []

        def test_devices(ring, remote_lab_client):
            assert remote_lab_client.devices() == ring
            assert remote_lab_client.status().ref_count == 1
            seen.append(remote_lab_client)

        def test_released(remote_lab_client):
            assert remote_lab_client.status().ref_count == 0
            assert seen == [remote_lab_client]
        """
    )
    suite.run().assert_outcomes(passed=2)


def test_the_place_in_the_queue(suite: Suite, lab_host: LabHost) -> None:
    """Before the first test it is said where a session would stand; the run waits for its turn."""
    holder = lab_host.server.open_session()
    suite.tests("def test_1(ring): pass")
    result = suite.run("--remote-lab-session-timeout=1.5")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"remote lab: {lab_host.url}, position 1, clab", "No session: *within 1.5 s*"])
    lab_host.server.end_session(holder)
    assert lab_host.sessions() == 0


def test_nothing_is_asked_for_without_lab_tests(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite that needs no lab names the server it was told, and leaves it alone."""
    peer = FakePeer()
    try:
        monkeypatch.setenv("REMOTE_LAB_URL", peer.url)
        suite.tests("def test_plain(): pass\ndef test_lab(ring): pass")
        suite.run("-k", "plain").assert_outcomes(passed=1, deselected=1)
        suite.run("--collect-only")
        assert peer.asked == []
    finally:
        peer.stop()


def test_a_server_that_knows_less(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a neops-remote-lab 1.4.0 server the line has what that says."""
    peer = FakePeer()
    try:
        peer.says("GET", "/debug/health", Reply(200, {"status": "ok", "sessions": 3, "queue_length": 2}))
        monkeypatch.setenv("REMOTE_LAB_URL", peer.url)
        suite.tests("def test_lab(ring): assert [device.name for device in ring] == ['r1']")
        result = suite.run()
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines([f"remote lab: {peer.url}, position 2"])
    finally:
        peer.stop()


def test_a_server_that_is_not_there(suite: Suite) -> None:
    """It is an error of each test that needs a lab, never a skip, in a sentence without secrets."""
    url = f"http://me:hunter2@127.0.0.1:{free_port()}"
    shown = url.replace("me:hunter2@", "")
    suite.tests("def test_1(ring): pass\ndef test_2(): pass")
    result = suite.run("-l", f"--remote-lab-url={url}")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            f"remote lab: {shown}, no word from it: connection refused",
            f"No session: No Remote Lab Manager answers at {shown}*",
        ]
    )
    said = "\n".join(result.outlines)
    assert "hunter2" not in said
    assert "Traceback" not in said


def test_a_boot_that_fails(suite: Suite, lab_host: LabHost) -> None:
    """It is the error of its test and shows the end of netlab's log; the next test gets its lab."""
    (suite.path / "ring.yml").write_text("nodes: [r1]\nstandin:\n  up_fails: true\n")
    suite.tests("def test_1(ring): pass\ndef test_2(star): pass")
    result = suite.run()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*LabBootError: *lab_boot_failed*", "*told to fail in up*", "ERROR *LabBootError*"])
    assert "acquiring.py" not in result.stdout.str(), "how the client went about it is of no use"


def test_a_second_lab_by_request(suite: Suite, lab_host: LabHost) -> None:
    """A test that has a lab and asks for another while it runs fails at once; its first lab is given back."""
    suite.tests(
        """
        def test_both(ring, request): request.getfixturevalue("star")
        def test_after(star): pass
        def test_dynamic(request): assert request.getfixturevalue("ring")
        """
    )
    result = suite.run()
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        ["usage error: *::test_both asks for the lab fixtures 'ring' and 'star', but there is one lab at a time.*"]
    )


def test_topology_is_found_from_the_current_directory(suite: Suite, lab_host: LabHost) -> None:
    """A relative path is fixed at collection, whatever a test does to the current directory."""
    suite.tests(
        """
        def test_elsewhere(monkeypatch, tmp_path, request):
            monkeypatch.chdir(tmp_path)
            assert request.getfixturevalue("ring")
        """
    )
    suite.run().assert_outcomes(passed=1)


@pytest.mark.parametrize("place", ["conftest", "test_module"])
def test_missing_topology(suite: Suite, place: str) -> None:
    """A topology file that is not there ends the collection with its name."""
    suite.pytester.makepyfile(
        **{place: CONFTEST.replace("star.yml", "no-such.yml"), "test_a": "def test_plain(): pass"}
    )
    result = suite.run()
    assert result.ret != pytest.ExitCode.OK
    said = result.stdout.str() + result.stderr.str()
    assert "no topology file 'no-such.yml'" in said
    assert "Path(__file__).parent" in said


def test_a_session_of_somebody_else(suite: Suite, lab_host: LabHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under `remote-lab run` tests use the lab that is up, also with fixtures that want a fresh one; it all stays."""
    session_id = lab_host.server.open_session()
    assert lab_host.server.acquire(session_id, suite.path / "ring.yml").status_code == 200
    monkeypatch.setenv("REMOTE_LAB_SESSION_ID", session_id)
    suite.conftest(CONFTEST.replace(", reuse_lab=True", ""))
    suite.tests("def test_1(ring): pass\ndef test_2(ring): pass\ndef test_other(star): pass")
    result = suite.run("-n2")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["This session holds the lab ring.yml for whoever opened it, and star.yml cannot run*"])
    assert lab_host.boots() == ["ring.yml"]
    assert lab_host.server.status(session_id) == ("active", 0)
    assert lab_host.server.call("GET", "/lab", session_id).json()["ref_count"] == 1


def test_progress_in_the_log(suite: Suite, lab_host: LabHost) -> None:
    """`-o log_cli=true` shows how far things are, without a level having to be set for it."""
    (suite.path / "ring.yml").write_text("nodes: [r1]\nstandin:\n  up_seconds: 1.4\n")
    suite.tests("def test_1(ring): pass")
    result = suite.run("-o", "log_cli=true")
    result.stdout.fnmatch_lines(
        ["*INFO*remote_lab.client*position 0*", "*booting ring.yml: *", "*lab ring.yml is up*r1*"]
    )


@pytest.mark.parametrize(("patience_seconds", "is_shown"), [(1, True), (600, False)])
def test_progress_on_a_terminal(suite: Suite, lab_host: LabHost, patience_seconds: int, is_shown: bool) -> None:
    """A boot that takes its time has a live line that leaves no trace; one that is over by then has none."""
    (suite.path / "star.yml").write_text("nodes: [r1, r2]\nstandin:\n  up_seconds: 2.5\n")
    suite.conftest(
        f"from remote_lab.testing import progress\nprogress.PATIENCE_SECONDS = {patience_seconds}\n{CONFTEST}"
    )
    suite.tests("def test_1(star): pass")
    pty_run = "import pty, sys; pty.spawn(sys.argv[1:])"
    command = [*suite.pytester._getpytestargs(), "-p", "no:cacheprovider"]
    result = suite.pytester.run(command[0], "-c", pty_run, *command, timeout=60)
    raw = result.stdout.str()
    assert ("booting star.yml" in raw) is is_shown
    assert "1 passed" in raw
    for line in raw.split("\n"):
        assert "booting" not in line.split("\x1b[K")[-1]


def test_an_unused_import(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lab fixtures that no test asks for cost nothing and ask nobody."""
    suite.tests("def test_plain(): pass")
    # Plugins of others that are installed here import what they like.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    code = (
        "import sys, pytest; pytest.main(['-q', '-p', 'remote_lab.testing.plugin']); print('requests' in sys.modules)"
    )
    result = suite.pytester.run(*suite.pytester._getpytestargs()[:1], "-c", code)
    assert result.outlines[-1] == "False"
