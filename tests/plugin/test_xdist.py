"""Runs with pytest-xdist: one session, lab tests on one worker in every mode, and workers that die."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from remote_lab.testing.scheduling import Plan, make_units

from .conftest import CONFTEST, FOUR_TESTS, LabHost, Suite

pytest_plugins = ["pytester"]

MODES = ["load", "loadscope", "loadfile", "loadgroup", "worksteal"]

PLAIN_TESTS = """
import pytest

@pytest.mark.parametrize("number", range(12))
def test_plain(number): pass

def test_client(remote_lab_client): assert remote_lab_client.session_id
"""


@pytest.fixture(autouse=True)
def _url(lab_host: LabHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMOTE_LAB_URL", lab_host.url)


def workers(result: pytest.RunResult) -> Iterator[tuple[str, str]]:
    """Of each test that passed, in order: its worker and its name."""
    for line in result.outlines:
        if found := re.match(r"\[(gw\d+)\] .* PASSED \S+::(\S+)", line):
            yield found[1], found[2]


@pytest.mark.parametrize("mode", MODES)
def test_lab_tests_stay_together(suite: Suite, lab_host: LabHost, mode: str) -> None:
    """Whatever the mode, one worker runs all lab tests, each topology boots once, and one line says how busy it is."""
    suite.tests(test_labs=FOUR_TESTS, test_more=PLAIN_TESTS)
    result = suite.run("-n2", f"--dist={mode}")
    result.assert_outcomes(passed=17)
    with_labs = [(worker, name) for worker, name in workers(result) if not name.startswith("test_plain")]
    assert [name for _, name in with_labs] == ["test_1", "test_3", "test_2", "test_4", "test_client"]
    assert len({worker for worker, _ in with_labs}) == 1
    assert lab_host.boots() == ["ring.yml", "star.yml"]
    assert lab_host.sessions() == 0
    lines = [line for line in result.outlines if line.startswith("remote lab:")]
    assert lines == [f"remote lab: {lab_host.url}", f"remote lab: {lab_host.url}, position 0, clab"]


def test_each(suite: Suite, lab_host: LabHost) -> None:
    """With `--dist each` the workers take turns with the labs instead of fighting for them."""
    suite.tests(FOUR_TESTS)
    result = suite.run("-n2", "--dist=each")
    assert len(list(workers(result))) == 8
    assert lab_host.boots() == 2 * ["ring.yml", "star.yml"]
    assert lab_host.sessions() == 0


def test_groups_of_the_user(suite: Suite, lab_host: LabHost) -> None:
    """A group with a lab test in it goes where the lab tests are; others stay groups."""
    suite.tests(
        """
        import pytest

        def test_lab(ring): pass

        @pytest.mark.xdist_group("mixed")
        def test_lab_in_group(star): pass

        @pytest.mark.xdist_group("mixed")
        def test_beside(): pass

        @pytest.mark.xdist_group("plain")
        @pytest.mark.parametrize("number", range(4))
        def test_plain(number): pass
        """
    )
    result = suite.run("-n3", "--dist=loadgroup")
    result.assert_outcomes(passed=7)
    by_name = {re.split(r"[@\[]", name)[0]: set[str]() for _, name in workers(result)}
    for worker, name in workers(result):
        by_name[re.split(r"[@\[]", name)[0]].add(worker)
    assert by_name["test_lab"] == by_name["test_lab_in_group"] == by_name["test_beside"]
    assert len(by_name["test_lab"]) == len(by_name["test_plain"]) == 1


def test_suites_without_labs_are_xdists_own(suite: Suite) -> None:
    """Without a lab test nothing is said and nothing is different."""
    suite.tests("import pytest\n\n@pytest.mark.parametrize('number', range(6))\ndef test_plain(number): pass")
    result = suite.run("-n2")
    result.assert_outcomes(passed=6)
    assert sum(line.startswith("remote lab:") for line in result.outlines) == 1


@pytest.mark.parametrize("mode", ["load", "loadscope"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_worker_that_dies(suite: Suite, lab_host: LabHost, mode: str, count: int) -> None:
    """Its test has failed, once; another worker joins the session, gives back what the dead one held, and goes on."""
    suite.tests(
        """
        import os

        def test_before(ring): pass
        def test_dies(ring): os._exit(3)
        def test_after(ring): pass
        def test_other(star): pass
        def test_plain(): pass
        """
    )
    result = suite.run(f"-n{count}", f"--dist={mode}")
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(["*worker 'gw?' crashed while running '*::test_dies'*"])
    assert lab_host.boots() == ["ring.yml", "ring.yml", "star.yml"]
    assert lab_host.sessions() == 0


def test_a_crashed_test_runs_again(suite: Suite, lab_host: LabHost) -> None:
    """Plugins that have a test run once more when it took its worker with it, like pytest-rerunfailures, can do so."""
    suite.conftest(
        CONFTEST
        + """
def pytest_handlecrashitem(crashitem, sched):
    assert sched.config.option.numprocesses == 2
    sched.mark_test_pending(crashitem)
"""
    )
    suite.tests(
        """
        import os, pathlib

        def test_dies_once(ring):
            if not pathlib.Path("died").exists():
                pathlib.Path("died").touch()
                os._exit(3)

        def test_after(ring): pass
        """
    )
    result = suite.run("-n2")
    result.assert_outcomes(passed=2, failed=1)
    assert [name for _, name in workers(result)] == ["test_dies_once", "test_after"]


def test_a_worker_that_dies_in_the_last_test(suite: Suite, lab_host: LabHost) -> None:
    """Nobody is left to give the session back but the controller, which does."""
    suite.tests("import os\n\ndef test_1(ring): pass\ndef test_dies(ring): os._exit(3)")
    suite.run("-n2").assert_outcomes(passed=1, failed=1)
    assert lab_host.sessions() == 0


def test_a_lab_asked_for_by_request(suite: Suite, lab_host: LabHost) -> None:
    """A test that nobody could know for a lab test waits until the others are done with theirs."""
    suite.tests(
        test_labs=FOUR_TESTS,
        test_more="""
        import pytest

        @pytest.mark.parametrize("number", range(4))
        def test_dynamic(request, number): assert request.getfixturevalue("ring")
        """,
    )
    suite.run("-n2").assert_outcomes(passed=8)
    suite.run("-n2", "test_more.py").assert_outcomes(passed=4)
    assert lab_host.sessions() == 0


COLLECTION = ["a.py::A::t1", "a.py::A::t2", "a.py::t3", "b.py::t4", "b.py::t5[x::y]"]


@pytest.mark.parametrize(
    ("mode", "units"),
    [
        ("load", [[1, 3], [0], [2], [4]]),
        ("worksteal", [[1, 3], [0], [2], [4]]),
        ("loadscope", [[1, 3], [0], [2], [4]]),
        ("loadfile", [[1, 3], [0, 2], [4]]),
        ("loadgroup", [[1, 3], [0, 4], [2]]),
    ],
)
def test_units(mode: str, units: list[list[int]]) -> None:
    """The lab tests are the first unit; the others are cut as the mode says."""
    plan = Plan(frozenset({3, 1}), {0: "mine", 4: "mine"})
    assert list(make_units(COLLECTION, plan, mode, chunks=16)) == units
