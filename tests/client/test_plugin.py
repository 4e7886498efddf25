"""The pytest plugin, as the entry point loads it, in suites of its own."""

from __future__ import annotations

import inspect

import pytest

from remote_lab.testing.fixture import remote_lab_fixture

from .fake_peer import FakePeer, Reply

pytest_plugins = ["pytester"]

TWO_LABS = """
from remote_lab.testing.fixture import remote_lab_fixture

ring = remote_lab_fixture("demo.yml")
star = remote_lab_fixture("star.yml", name="a label", reuse_lab=True)
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, peer: FakePeer, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """An empty suite with two topologies and two lab fixtures, and a server to get them from."""
    monkeypatch.setenv("REMOTE_LAB_URL", peer.url)
    (pytester.path / "demo.yml").write_text("nodes: [r1]\n")
    (pytester.path / "star.yml").write_text("nodes: [r1, r2]\n")
    pytester.makeconftest(TWO_LABS)
    return pytester


def order(suite: pytest.Pytester, *arguments: str) -> list[str]:
    """Names of the tests in the order in which they would run."""
    result = suite.runpytest("--collect-only", "-q", "-p", "no:cacheprovider", *arguments)
    return [line.split("::")[-1] for line in result.outlines if "::" in line]


def test_signatures() -> None:
    """Names and defaults that a conftest relies on."""
    assert str(inspect.signature(remote_lab_fixture)).startswith(
        "(topology: 'str | Path', *, name: 'str | None' = None, reuse_lab: 'bool' = False)"
    )


def test_fixture_yields_devices_and_releases(suite: pytest.Pytester, peer: FakePeer) -> None:
    """A test gets its lab's devices, the lab is released also after a failure, the session ends with the run."""
    suite.makepyfile(
        """
        def test_devices(ring, remote_lab_client):
            assert [device.name for device in ring] == ["r1"]
            assert remote_lab_client.devices() == ring

        def test_failing(ring):
            assert not ring
        """
    )
    suite.runpytest().assert_outcomes(passed=1, failed=1)
    spoken = [f"{asked.method} {asked.path}" for asked in peer.asked]
    assert spoken == [
        "POST /session",
        "GET /session/s-1",
        "POST /lab",
        "GET /lab/devices",
        "POST /lab/release",
        "POST /lab",
        "POST /lab/release",
        "DELETE /session/s-1",
    ]


def test_reuse_lab_is_sent(suite: pytest.Pytester, peer: FakePeer) -> None:
    """A fixture asks for a fresh lab unless `reuse_lab` allows to share one."""
    suite.makepyfile("def test_ring(ring): pass\ndef test_star(star): pass")
    suite.runpytest().assert_outcomes(passed=2)
    assert [sorted(asked.parts)[0][2] for asked in peer.requests("POST", "/lab")] == [b"false", b"true"]


def test_failed_boot_is_the_tests_error(suite: pytest.Pytester, peer: FakePeer) -> None:
    """A lab that does not boot makes its test an error that shows the end of the boot log, and nothing is released."""
    failed = {"detail": "No image.", "code": "lab_boot_failed", "phase": "create", "log_tail": "[FATAL] no image"}
    peer.says("POST", "/lab", Reply(500, failed))
    suite.makepyfile("def test_ring(ring): pass")
    result = suite.runpytest()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*LabBootError: POST *: 500 lab_boot_failed: No image.", "*[[]FATAL] no image"])
    assert peer.count("POST", "/lab/release") == 0


def test_missing_url(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without REMOTE_LAB_URL tests with a lab say what to set, in one line and no traceback; others run."""
    monkeypatch.delenv("REMOTE_LAB_URL")
    suite.makepyfile("def test_ring(ring): pass\ndef test_plain(): pass")
    result = suite.runpytest()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["REMOTE_LAB_URL is not set*Set it to the address*"])
    result.stdout.no_fnmatch_line("*fixture.py*")


@pytest.mark.parametrize("place", ["conftest", "test_module"])
def test_missing_topology(pytester: pytest.Pytester, place: str) -> None:
    """A topology file that is not there ends the collection with its name."""
    pytester.makepyfile(test_a="def test_plain(): pass")
    code = TWO_LABS.replace("star.yml", "no-such.yml")
    (pytester.path / "demo.yml").touch()
    pytester.makepyfile(**{place: code})
    result = pytester.runpytest("test_module.py" if place == "test_module" else ".")
    assert result.ret != pytest.ExitCode.OK
    assert "no topology file 'no-such.yml'" in result.stdout.str() + result.stderr.str()


def test_topology_is_found_from_the_current_directory(suite: pytest.Pytester, peer: FakePeer) -> None:
    """A relative path is fixed at collection, whatever a test does to the current directory."""
    suite.makepyfile(
        """
        def test_elsewhere(monkeypatch, tmp_path, request):
            monkeypatch.chdir(tmp_path)
            assert request.getfixturevalue("ring")
        """
    )
    suite.runpytest().assert_outcomes(passed=1)
    assert peer.count("POST", "/lab") == 1


def test_tests_of_a_lab_run_together(suite: pytest.Pytester) -> None:
    """Tests move behind the first one of their lab; all others stay where they are."""
    suite.makepyfile(
        """
        def test_0(): pass
        def test_1_ring(ring): pass
        def test_2(): pass
        def test_3_star(star): pass
        def test_4_ring(ring): pass
        def test_5(): pass
        def test_6_star(star): pass
        """
    )
    expected = ["test_0", "test_1_ring", "test_4_ring", "test_2", "test_3_star", "test_6_star", "test_5"]
    assert order(suite) == expected


def test_order_goes_by_the_fixture_object(suite: pytest.Pytester) -> None:
    """One fixture under two names, or behind other fixtures, is one lab; same-named fixtures are not."""
    suite.makepyfile(
        test_a="""
        import pytest
        from remote_lab.testing.fixture import remote_lab_fixture
        from conftest import ring as alias

        @pytest.fixture
        def addresses(ring): return ring

        def test_1_ring(addresses): pass
        def test_2_star(star): pass
        def test_3_ring(alias): pass
        """,
        test_b="""
        from remote_lab.testing.fixture import remote_lab_fixture

        star = remote_lab_fixture("star.yml")

        class TestClass:
            def test_4_other_star(self, star): pass
            def test_5_ring(self, ring): pass
        """,
    )
    expected = ["test_1_ring", "test_3_ring", "test_5_ring", "test_2_star", "test_4_other_star"]
    assert order(suite) == expected


def test_order_of_a_suite_without_labs(suite: pytest.Pytester) -> None:
    """Where no lab is asked for, pytest's order stands."""
    suite.makepyfile("def test_b(): pass\ndef test_a(): pass\ndef test_c(): pass")
    assert order(suite) == ["test_b", "test_a", "test_c"]


@pytest.mark.parametrize(
    "test",
    [
        "def test_both(ring, star): pass",
        "@pytest.mark.usefixtures('ring')\ndef test_both(star): pass",
        "@pytest.fixture\ndef hidden(ring): pass\n\ndef test_both(star, hidden): pass",
        "@pytest.mark.usefixtures('ring', 'star')\nclass TestCase(unittest.TestCase):\n    def test_both(self): pass",
    ],
    ids=["arguments", "usefixtures", "behind a fixture", "unittest"],
)
def test_two_labs_in_a_test(suite: pytest.Pytester, peer: FakePeer, test: str) -> None:
    """A test that wants two labs is a collection error of its own that names both; its neighbours are collected."""
    suite.makepyfile(f"import unittest\nimport pytest\n\n{test}\n\ndef test_neighbour(star): pass\n")
    result = suite.runpytest("--continue-on-collection-errors")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*ERROR collecting*", "usage error: *::test_both asks for*", "ERROR *::test_both*"])
    message = next(line for line in result.outlines if line.startswith("usage error"))
    assert "'ring'" in message
    assert "'star'" in message
    assert "INTERNALERROR" not in result.stdout.str()
    assert peer.count("POST", "/lab") == 1


def test_two_labs_stop_the_run(suite: pytest.Pytester, peer: FakePeer) -> None:
    """Like every collection error it keeps the run from starting, so that no lab is booted for it."""
    suite.makepyfile("def test_both(ring, star): pass\ndef test_neighbour(star): pass")
    assert suite.runpytest().ret == pytest.ExitCode.INTERRUPTED
    assert peer.asked == []


def test_overridden_lab_does_not_count(suite: pytest.Pytester) -> None:
    """A lab fixture that another one of its name stands in for, or a parameter does, is not asked for."""
    suite.makepyfile(
        """
        import pytest

        @pytest.fixture
        def ring(): return "no lab"

        def test_plain_override(ring, star): pass

        @pytest.mark.parametrize("star", ["no lab"])
        def test_parameter(star, ring): pass
        """
    )
    assert order(suite) == ["test_plain_override", "test_parameter[no lab]"]


def test_extended_lab_counts_once(suite: pytest.Pytester) -> None:
    """A fixture that extends the lab fixture of its own name is that lab, and a second lab beside it is refused."""
    suite.makepyfile(
        """
        import pytest

        @pytest.fixture
        def ring(ring): return ring[0]

        def test_one(ring): assert ring.name == "r1"
        def test_both(ring, star): pass
        """
    )
    result = suite.runpytest("--continue-on-collection-errors")
    result.assert_outcomes(passed=1, errors=1)


def test_two_labs_under_xdist(suite: pytest.Pytester) -> None:
    """Workers report the same error, not an internal one of theirs."""
    suite.makepyfile("def test_both(ring, star): pass\ndef test_neighbour(): pass")
    result = suite.runpytest_subprocess("-n1")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["usage error: *::test_both asks for the lab fixtures 'ring' and 'star'*"])
