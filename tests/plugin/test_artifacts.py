from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import requests
from harness import STANDIN, Server, running

from remote_lab.client import DeviceInfoDto, LabStatusDto
from remote_lab.testing import artifacts

from .failing import server, suite

__all__ = ["server", "suite"]
pytest_plugins = ["pytester"]

OPTION = "--remote-lab-artifacts=out"


class Client:
    """What `artifacts.save` asks of a client, without a server."""

    base_url = "http://user:secret@lab-host:8000"
    session_id = "s-1"

    def __init__(self, *state: dict[str, Any]) -> None:
        self.state = state

    def status(self) -> LabStatusDto:
        return LabStatusDto(running=True, topology="demo.yml", ref_count=1, devices=[], netlab_status=None)

    def log(self) -> str:
        return "netlab up\n\ud800"

    def device_state(self) -> list[dict[str, Any]]:
        return list(self.state)


def folders(suite: pytest.Pytester) -> list[Path]:
    return sorted((suite.path / "out").iterdir())


def test_failed_test_leaves_what_there_is_to_know(suite: pytest.Pytester) -> None:
    """After a failure boot log, devices and their outputs lie in a folder named for the test; no other test has one."""
    suite.makepyfile(
        test_demo="""
        import pytest

        def test_passing(lab):
            pass

        def test_skipped(lab):
            pytest.skip("not today")

        @pytest.mark.xfail(strict=True)
        def test_known(lab):
            assert not lab

        def test_without_lab():
            assert False

        def test_failing(lab):
            assert not lab, "the reason"
        """
    )
    result = suite.runpytest(OPTION)
    result.assert_outcomes(passed=1, skipped=1, xfailed=1, failed=2)
    (folder,) = folders(suite)
    assert re.fullmatch(r"test_demo\.py-test_failing-[0-9a-f]{8}", folder.name)
    assert "Starting clab nodes" in (folder / "boot.log").read_text()
    devices = json.loads((folder / "devices.json").read_text())
    assert [device["name"] for device in devices] == ["r1", "r2"]
    assert devices[0]["raw"]["box"] == "standin"
    outputs = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.glob("r?/*.txt")}
    assert {path.partition("/")[0] for path in outputs} == {"r1", "r2"}
    running_config = next(path for path in outputs if path.startswith("r1/") and "show-running-config" in path)
    assert "r1 says" in outputs[running_config]
    summary = (folder / "summary.txt").read_text()
    for said in ("test_demo.py::test_failing", "demo.yml", running_config):
        assert said in summary
    result.stdout.fnmatch_lines(["*the reason*", "*- remote lab -*", f"*{folder}"])


def test_lab_that_does_not_boot_leaves_its_log(suite: pytest.Pytester) -> None:
    """A setup that fails because the lab does not come up has the boot log, and its own reason stays."""
    suite.makepyfile("def test_it(broken_lab): pass")
    result = suite.runpytest(OPTION)
    result.assert_outcomes(errors=1)
    (folder,) = folders(suite)
    assert "Fatal error in netlab: told to fail in up" in (folder / "boot.log").read_text()
    assert "devices   not saved: " in (folder / "summary.txt").read_text()
    result.stdout.fnmatch_lines(["*LabBootError*"])


def test_setup_that_fails_behind_the_lab_is_a_failure_as_well(suite: pytest.Pytester) -> None:
    """When a fixture that uses the lab fails, the devices that the test never saw are saved."""
    suite.makepyfile(
        """
        import pytest

        @pytest.fixture
        def configured(lab):
            raise RuntimeError("cannot configure")

        def test_it(configured): pass
        """
    )
    suite.runpytest(OPTION).assert_outcomes(errors=1)
    (folder,) = folders(suite)
    assert [device["name"] for device in json.loads((folder / "devices.json").read_text())] == ["r1", "r2"]
    assert (folder / "r1").is_dir()


def test_second_failure_does_not_replace_the_first(suite: pytest.Pytester) -> None:
    """A test that fails again gets a folder beside the first."""
    suite.makepyfile(test_demo="def test_it(lab): assert not lab")
    for _ in range(2):
        suite.runpytest(OPTION).assert_outcomes(failed=1)
    first, second = folders(suite)
    assert second.name == f"{first.name}-2"
    assert (first / "summary.txt").exists()
    assert (second / "boot.log").exists()


def test_junit_names_the_folder(suite: pytest.Pytester) -> None:
    """The XML for CI has the folder as a property of the failed test and of no other."""
    suite.makepyfile("def test_fails(lab): assert not lab\ndef test_passes(lab): pass")
    suite.runpytest(OPTION, "--junit-xml=report.xml")
    (folder,) = folders(suite)
    cases = ElementTree.parse(suite.path / "report.xml").iter("testcase")
    found = {case.get("name"): [(p.get("name"), p.get("value")) for p in case.iter("property")] for case in cases}
    assert found == {"test_fails": [("remote_lab_artifacts", str(folder))], "test_passes": []}


def test_worker_of_xdist_saves_in_the_same_place(suite: pytest.Pytester) -> None:
    """With -n the folder lies where the run was started, and report and XML name it."""
    suite.makepyfile("def test_fails(lab): assert not lab\ndef test_passes(): pass")
    result = suite.runpytest_subprocess(OPTION, "--junit-xml=report.xml", "-n", "2", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, failed=1)
    (folder,) = folders(suite)
    assert (folder / "boot.log").exists()
    result.stdout.fnmatch_lines([f"*{folder}"])
    assert str(folder) in (suite.path / "report.xml").read_text()


def test_nothing_is_saved_unless_it_is_wanted(suite: pytest.Pytester) -> None:
    """Without the option a failure leaves no files."""
    suite.makepyfile("def test_it(lab): assert not lab")
    before = {path.name for path in suite.path.iterdir()}
    suite.runpytest("-p", "no:cacheprovider").assert_outcomes(failed=1)
    assert {path.name for path in suite.path.iterdir()} - before <= {"__pycache__"} | {
        path.name for path in suite.path.glob("test_*.py")
    }


def test_server_that_is_gone_hides_no_failure(
    suite: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the server dies with the test, the test's own reason is reported and the summary says what is missing."""
    doomed = Server(tmp_path / "state", PROVIDER="clab", NETLAB=STANDIN)
    with running(doomed):
        monkeypatch.setenv("REMOTE_LAB_URL", doomed.url)
        assert doomed.process is not None
        suite.makepyfile(
            f"""
            import os, signal

            def test_it(lab):
                os.killpg({doomed.process.pid}, signal.SIGKILL)
                assert not lab, "the reason"
            """
        )
        result = suite.runpytest(OPTION)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*the reason*"])
    summary = (folders(suite)[0] / "summary.txt").read_text()
    assert "boot log  not saved: the server is gone" in summary
    assert "state     not saved: the server is gone" in summary


def test_folder_that_cannot_be_made_is_said(suite: pytest.Pytester) -> None:
    """A disk that takes no folder costs the artifacts and not the report."""
    suite.makepyfile("import shutil\ndef test_it(lab):\n    open('out', 'w').close()\n    assert not lab, 'the reason'")
    result = suite.runpytest(OPTION)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*the reason*", "*The artifacts could not be saved: *out*"])


@pytest.mark.parametrize(
    "nodeid",
    [
        "../../etc/passwd",
        "t.py::test[/]",
        "t.py::test[..]",
        "",
        "t.py::test[\x00\n\ud800]",
        "t.py::é😀",
        "x" * 5000,
        ".",
    ],
)
def test_any_test_id_makes_a_folder_below(nodeid: str, tmp_path: Path) -> None:
    """Whatever an id holds, its folder lies directly below the one asked for, under a bounded name."""
    saved = artifacts.save(Client(), [], nodeid, tmp_path / "out")
    assert saved.parent == tmp_path / "out"
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.=-]{8,120}", saved.name)
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    assert (saved / "summary.txt").read_text().startswith("test  ")


def test_ids_that_look_alike_have_folders_of_their_own(tmp_path: Path) -> None:
    """Tests whose ids differ in what a path cannot hold don't meet."""
    names = {artifacts.save(Client(), [], nodeid, tmp_path).name for nodeid in ("t[a/b]", "t[a:b]", "t[a b]")}
    assert len(names) == 3
    assert not any(name.endswith("-2") for name in names)


def test_outputs_stay_in_the_folder(tmp_path: Path) -> None:
    """Names of devices and commands that are no names of files lead nowhere else, and none replaces another."""
    outputs = [
        {"command": command, "output": command, "ok": True} for command in ("../x", "show a", "show/a", "SHOW a")
    ]
    state = [{"name": name, "device": "frr", "outputs": outputs} for name in ("../r1", "r1", "boot.log", "R1")]
    saved = artifacts.save(Client(*state), [DeviceInfoDto("r1", {"odd": object()})], "t", tmp_path / "out")
    files = [path.relative_to(saved) for path in saved.rglob("*.txt") if path.parent != saved]
    assert len(files) == 16
    assert len({str(path).casefold() for path in files}) == 16
    assert {path.read_text() for path in saved.rglob("show*.txt")} >= {"show a", "show/a"}
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    assert (saved / "boot.log").is_file()


def test_summary_keeps_passwords_of_the_url(tmp_path: Path) -> None:
    """The server is named without the user and password that its URL has."""
    saved = artifacts.save(Client(), [], "t", tmp_path)
    summary = (saved / "summary.txt").read_text()
    assert "http://lab-host:8000" in summary
    assert "secret" not in summary


def test_what_cannot_be_had_is_a_line(tmp_path: Path) -> None:
    """Whatever goes wrong with a step, the others are done and the summary has the reason."""

    class Old(Client):
        def device_state(self) -> list[dict[str, Any]]:
            raise requests.HTTPError("404: no such\nroute")

        def status(self) -> LabStatusDto:
            raise KeyError

    saved = artifacts.save(Old(), [DeviceInfoDto("r1", {})], "t", tmp_path)
    summary = (saved / "summary.txt").read_text()
    assert "state     not saved: 404: no such route\n" in summary
    assert "topology  not saved: KeyError\n" in summary
    assert (saved / "devices.json").exists()
