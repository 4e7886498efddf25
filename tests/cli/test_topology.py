"""`remote-lab topology check`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Server, processes_named, wait_until

from .conftest import Operator

FRR = "defaults.device: frr\n"


@pytest.fixture
def operator(make_server: Callable[..., Server], tmp_path: Path) -> Operator:
    """An operator who wants labs in sandboxes, without a server."""
    return Operator(make_server(PROVIDER="netns"), tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "code", "sentence"),
    [
        ("lab.txt", "nodes: [ r1 ]\n", "topology_name_invalid", "must be a .yml or .yaml file"),
        ("lab.yml", "nodes: [ r1\n", "topology_malformed", "line 2, column 1"),
        ("lab.yml", "- r1\n", "topology_malformed", "must be a mapping"),
        ("lab.yml", "", "upload_empty", "is empty"),
    ],
)
def test_a_file_that_an_upload_would_refuse_is_refused(
    operator: Operator, name: str, text: str, code: str, sentence: str
) -> None:
    """With the code and the sentence of the wire; nothing is left in the state folder."""
    (operator.folder / name).write_text(text)
    complaint = operator.complains("topology", "check", name)
    assert code in complaint
    assert sentence in complaint
    data = operator.data("topology", "check", name, status=1)
    assert (data["accepted"], data["code"]) == (False, code)
    assert sentence in data["detail"]
    assert not list(operator.folder.rglob("*/labs/*"))


def test_an_extra_file_that_clashes_is_refused(operator: Operator) -> None:
    """Two files of the same name from different folders would be one."""
    (operator.folder / "lab").mkdir()
    for name in ("lab/lab.yml", "one.j2", "lab/one.j2"):
        (operator.folder / name).write_text("nodes: [ r1 ]\n")
    assert "upload_name_clash" in operator.complains("topology", "check", "lab/lab.yml", "one.j2", "lab/one.j2")


@pytest.mark.lab
def test_the_devices_are_shown_while_somebody_else_has_the_lab(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    """Beside a server whose only slot is taken: nothing boots, nobody waits, and the server leaves it alone."""
    server = make_server(PROVIDER="netns", REAPER_SECONDS=0.1).start()
    operator = Operator(server, tmp_path)
    session_id = server.open_session()
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "motd.j2").write_text("hello\n")
    (tmp_path / "lab.yml").write_text(f"{FRR}nodes: [ r1, r2 ]\nmodule: [ ospf ]\nlinks: [ r1-r2 ]\n")
    rows = operator.rows("topology", "check", "lab.yml", "templates/motd.j2")
    assert [row[0] for row in rows[1:3]] == ["r1", "r2"]
    assert rows[1] == ["r1", "frr", "router", "1", "ospf"]
    assert rows[-1] == ["lab.yml", "would", "boot", "2", "devices."]
    data = operator.data("topology", "check", "lab.yml")
    assert [device["name"] for device in data["devices"]] == ["r1", "r2"]
    assert [one["session_id"] for one in operator.data("session", "list")] == [session_id]
    assert not list(server.state_dir.glob("check/labs/*"))


@pytest.mark.lab
def test_what_netlab_refuses_is_shown_in_its_words(operator: Operator) -> None:
    """As the boot of an upload would end: phase, reason, and the end of netlab's log."""
    (operator.folder / "lab.yml").write_text(f"{FRR}nodes: [ r1 ]\nmodule: [ nonsense ]\n")
    complaint = operator.complains("topology", "check", "lab.yml")
    assert "nonsense" in complaint
    assert "lab_boot_failed" in complaint
    data = operator.data("topology", "check", "lab.yml", status=1)
    assert data["phase"] == "create"
    assert "nonsense" in data["log_tail"]


@pytest.mark.lab
def test_what_a_killed_check_left_is_ended_by_the_next(make_server: Callable[..., Server], tmp_path: Path) -> None:
    """Its sandbox and its files."""
    server = make_server(PROVIDER="netns")
    server.state_dir.mkdir()
    operator = Operator(server, tmp_path)
    (tmp_path / "lab.yml").write_text(f"{FRR}nodes: [ r1 ]\n")
    check = subprocess.Popen(
        [sys.executable, "-m", "remote_lab", "topology", "check", "lab.yml"],
        env=server.environment,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    folder = server.state_dir / "check" / "labs"
    wait_until(lambda: [one for one in folder.glob("*") if processes_named(one.name)], "the sandbox is there")
    (left,) = folder.glob("*")
    check.kill()
    check.wait()
    assert processes_named(left.name)
    assert operator.rows("topology", "check", "lab.yml")[1][0] == "r1"
    wait_until(lambda: not processes_named(left.name), "the sandbox is gone")
    assert not list(folder.glob("*"))
