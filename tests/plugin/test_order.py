"""In which order tests with labs run, and that none wants two of them."""

from __future__ import annotations

import pytest

from .conftest import Suite

pytest_plugins = ["pytester"]

FIVE_TESTS = """
def test_0(): pass
def test_1_ring(ring): pass
def test_2_star(star): pass
def test_3(): pass
def test_4_ring(ring): pass
"""


def test_tests_of_a_lab_run_together(suite: Suite) -> None:
    """Tests move behind the first one of their lab; all others stay where they are."""
    suite.tests(FIVE_TESTS)
    assert suite.order() == ["test_0", "test_1_ring", "test_4_ring", "test_2_star", "test_3"]


def test_order_by_fixture_not_by_name(suite: Suite) -> None:
    """A fixture under another name is the same lab; another fixture under the same name is another lab."""
    suite.tests(
        test_one="""
        from conftest import star as other_star

        def test_1_ring(ring): pass
        def test_2_star(star): pass

        class TestMore:
            def test_3_ring(self, ring): pass
            def test_4_other_star(self, other_star): pass
        """,
        test_two="""
        import pytest
        from remote_lab.testing.fixture import remote_lab_fixture

        star = remote_lab_fixture("ring.yml")

        @pytest.fixture
        def behind(ring): return ring

        def test_5_own_star(star): pass
        def test_6_ring(behind): pass
        """,
    )
    order = ["test_1_ring", "test_3_ring", "test_6_ring", "test_2_star", "test_4_other_star", "test_5_own_star"]
    assert suite.order() == order


def test_fixtures_that_can_share_a_lab(suite: Suite) -> None:
    """Fixtures of one topology that allow to share it follow each other; each still keeps its tests together."""
    suite.tests(
        test_one="def test_1_ring(ring): pass\ndef test_2_star(star): pass",
        test_two="""
        from remote_lab.testing.fixture import remote_lab_fixture

        same = remote_lab_fixture("ring.yml", reuse_lab=True)

        def test_3_same(same): pass
        def test_4_ring(ring): pass
        def test_5_same(same): pass
        """,
    )
    assert suite.order() == ["test_1_ring", "test_4_ring", "test_3_same", "test_5_same", "test_2_star"]


def test_order_of_a_suite_without_labs(suite: Suite) -> None:
    """Where no lab is asked for, pytest's order stands."""
    suite.tests("def test_b(): pass\ndef test_a(): pass\ndef test_c(): pass")
    assert suite.order() == ["test_b", "test_a", "test_c"]


@pytest.mark.parametrize("option", ["--ff", "--lf"])
def test_order_after_failures(suite: Suite, option: str) -> None:
    """What failed last time comes first, and the other tests of its lab come with it."""
    suite.tests(FIVE_TESTS.replace("def test_4_ring(ring): pass", "def test_4_ring(request): assert 0"))
    suite.pytester.runpytest_inprocess("-k", "test_4_ring")
    suite.tests(FIVE_TESTS)
    rest = [] if option == "--lf" else ["test_1_ring", "test_0", "test_2_star", "test_3"]
    assert suite.order(option) == ["test_4_ring", *rest]


def test_order_with_new_first(suite: Suite) -> None:
    """New files come first, and the other tests of their labs come with them."""
    suite.tests(test_old="def test_1(): pass\ndef test_2_ring(ring): pass")
    suite.pytester.runpytest_inprocess("-k", "test_1")
    suite.tests(test_recent="def test_3_ring(ring): pass\ndef test_4(): pass")
    assert suite.order("--nf") == ["test_3_ring", "test_2_ring", "test_4", "test_1"]


@pytest.mark.parametrize(
    "hook",
    [
        "pytest.hookimpl(trylast=True)",
        "pytest.hookimpl(tryfirst=True)",
        "pytest.hookimpl(wrapper=True)",
        "pytest.hookimpl(wrapper=True, tryfirst=True)",
    ],
)
def test_order_after_a_shuffle(suite: Suite, hook: str) -> None:
    """A plugin that shuffles does so, whenever it comes, and the tests of a lab are still together."""
    result = "yield" if "wrapper" in hook else "None"
    suite.pytester.makepyfile(
        shuffle=f"""
        import pytest

        @{hook}
        def pytest_collection_modifyitems(items):
            result = {result}
            items.reverse()
            return result
        """
    )
    suite.pytester.syspathinsert()
    suite.tests(FIVE_TESTS)
    assert suite.order("-p", "shuffle") == ["test_4_ring", "test_1_ring", "test_3", "test_2_star", "test_0"]


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
def test_two_labs_in_a_test(suite: Suite, test: str) -> None:
    """A test that wants two labs is a collection error of its own that names both; its neighbours are collected."""
    suite.tests(f"import unittest\nimport pytest\n\n{test}\n\ndef test_neighbour(): pass\n")
    result = suite.pytester.runpytest_inprocess("--continue-on-collection-errors")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*ERROR collecting*", "usage error: *::test_both asks for*", "ERROR *::test_both*"])
    message = next(line for line in result.outlines if line.startswith("usage error"))
    assert "'ring'" in message
    assert "'star'" in message
    assert "INTERNALERROR" not in result.stdout.str()


def test_two_labs_stop_the_run(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Like every collection error it keeps the run from starting, so that no lab is booted for it."""
    monkeypatch.setenv("REMOTE_LAB_URL", "http://127.0.0.1:9")
    suite.tests("def test_both(ring, star): pass\ndef test_neighbour(star): pass")
    assert suite.pytester.runpytest_inprocess().ret == pytest.ExitCode.INTERRUPTED


def test_overridden_lab_does_not_count(suite: Suite) -> None:
    """A lab fixture that another one of its name stands in for, or a parameter does, is not asked for."""
    suite.tests(
        """
        import pytest

        @pytest.fixture
        def ring(): return "no lab"

        def test_plain_override(ring, star): pass

        @pytest.mark.parametrize("star", ["no lab"])
        def test_parameter(star, ring): pass
        """
    )
    assert suite.order() == ["test_plain_override", "test_parameter[no lab]"]


def test_extended_lab_counts_once(suite: Suite) -> None:
    """A fixture that extends the lab fixture of its own name is that lab, and a second lab beside it is refused."""
    suite.tests(
        """
        import pytest

        @pytest.fixture
        def ring(ring): return ring[0]

        def test_one(ring): pass
        def test_both(ring, star): pass
        """
    )
    result = suite.pytester.runpytest_inprocess("--collect-only", "-q", "--continue-on-collection-errors")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*::test_one", "usage error: *::test_both asks for*"])


def test_two_labs_under_xdist(suite: Suite) -> None:
    """Workers report the same error, not an internal one of theirs."""
    suite.tests("def test_both(ring, star): pass\ndef test_neighbour(): pass")
    result = suite.run("-n1", "--continue-on-collection-errors")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["usage error: *::test_both asks for the lab fixtures 'ring' and 'star'*"])
