"""Uploads: what is refused and why, what is written where, what is left."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from remote_lab import errors
from remote_lab.core.workspace import UploadedFile, Workspaces, check_topology, safe_path


def upload(name: str, content: bytes = b"nodes: [r1]\n") -> UploadedFile:
    return UploadedFile(name, io.BytesIO(content))


@pytest.fixture
def workspaces(tmp_path: Path) -> Workspaces:
    return Workspaces(tmp_path, max_upload_bytes=1000, max_upload_files=3)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../x",
        "a/../b",
        "a/..",
        "./a",
        "a//b",
        "a/",
        "/etc/passwd",
        "C:\\x",
        "c:x",
        "a\\b",
        "a\nb",
        "a\0b",
        "a\x7fb",
        "\u202eb",
        "x" * 256,
        "/".join(["x" * 200] * 6),
    ],
)
def test_a_name_that_would_leave_the_workspace_is_refused(name: str) -> None:
    """Nothing of it is repaired: its sender hears about it."""
    with pytest.raises(errors.UploadNameUnsafe):
        safe_path(name)


@pytest.mark.parametrize("name", ["r1.j2", "configs/r1.j2", ".hidden", "..a", "a b", "straße.yml", "a/b/c/d"])
def test_an_ordinary_name_stays_as_it_is(name: str) -> None:
    """Relative folders, spaces and other languages are fine."""
    assert name == str(safe_path(name))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"nodes: [r1\n", "line 2, column 1"),
        (b"a: b: c\n", "line 1, column 5"),
        (b"- r1\n", "must be a mapping such as 'nodes: [r1, r2]' (line 1, column 1)"),
        (b"just words\n", "must be a mapping"),
        (b"# nothing\n", "nothing but comments"),
        (b"a: 1\n---\nb: 2\n", "second YAML document, keep one (line 2, column 1)"),
        (b"a: \xff\xfe\n", "is not YAML"),
        (b"\tnodes: x\n", "line 1, column 1"),
        (b"a: " + b"[" * 200 + b"]" * 200, "nested deeper than 100 levels"),
        (b"a: " + b"[" * 500_000, "nested deeper than 100 levels"),
    ],
)
def test_a_topology_that_is_no_mapping_is_refused_with_its_place(content: bytes, sentence: str) -> None:
    """The tired reader needs the line and the column."""
    with pytest.raises(errors.TopologyMalformed) as refusal:
        check_topology("demo.yml", content)
    assert "'demo.yml'" in str(refusal.value)
    assert sentence in str(refusal.value)


def test_a_yaml_bomb_is_refused_at_no_cost() -> None:
    """Its aliases are counted, not expanded: netlab copies what they stand for."""
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 40)]
    with pytest.raises(errors.TopologyMalformed) as refusal:
        check_topology("bomb.yml", "\n".join(lines).encode())
    assert "more than 1000000 values, each alias counted in full (line 7, column 20)" in str(refusal.value)
    check_topology("demo.yml", "\n".join(lines[:5]).encode())


@pytest.mark.parametrize("content", [b"a: &a [*a]", b"a: *b", b"a: *b\nb: &b 1", b"a: &a {b: &a [*a]}"])
def test_an_alias_of_nothing_complete_is_refused(content: bytes) -> None:
    """It would never end, or say nothing."""
    with pytest.raises(errors.TopologyMalformed, match=r"has no complete value named '[ab]'"):
        check_topology("demo.yml", content)


def test_an_upload_lies_as_it_was_sent(workspaces: Workspaces) -> None:
    """Extra files keep their folders beside the topology."""
    stored = workspaces.store(upload("demo.yml"), [upload("configs/r1.j2", b"hello"), upload("empty", b"")])
    directory = workspaces.directory(stored.lab_id)
    assert (directory / "demo.yml").read_bytes() == b"nodes: [r1]\n"
    assert (directory / "configs" / "r1.j2").read_bytes() == b"hello"
    assert (directory / "empty").read_bytes() == b""


@pytest.mark.parametrize(
    ("topology", "extra_files", "refusal"),
    [
        (upload("demo.txt"), [], errors.TopologyNameInvalid),
        (upload("demo"), [], errors.TopologyNameInvalid),
        (upload("a/demo.yml"), [], errors.UploadNameUnsafe),
        (upload("--help.yml"), [], errors.UploadNameUnsafe),
        (upload("../demo.yml"), [], errors.UploadNameUnsafe),
        (upload("demo.yml", b""), [], errors.UploadEmpty),
        (upload("demo.yml", b"- a"), [], errors.TopologyMalformed),
        (upload("demo.yml", b"a: " + b"x" * 1000), [], errors.UploadTooLarge),
        (upload("demo.yml"), [upload("big", b"x" * 990)], errors.UploadTooLarge),
        (upload("demo.yml"), [upload("../x")], errors.UploadNameUnsafe),
        (upload("demo.yml"), [upload("demo.yml")], errors.UploadNameClash),
        (upload("demo.yml"), [upload("x"), upload("x")], errors.UploadNameClash),
        (upload("demo.yml"), [upload("x"), upload("x/y")], errors.UploadNameClash),
        (upload("demo.yml"), [upload("x/y"), upload("x")], errors.UploadNameClash),
        (upload("demo.yml"), [upload("demo.yml/y")], errors.UploadNameClash),
        (upload("demo.yml"), [upload(str(n)) for n in range(4)], errors.UploadTooManyFiles),
    ],
)
def test_a_refused_upload_leaves_nothing(
    workspaces: Workspaces,
    tmp_path: Path,
    topology: UploadedFile,
    extra_files: list[UploadedFile],
    refusal: type[errors.UploadError],
) -> None:
    """Neither in the workspace nor beside it."""
    for file in (topology, *extra_files):
        file.stream.seek(0)
    with pytest.raises(refusal):
        workspaces.store(topology, extra_files)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_suffix_counts_in_any_case(workspaces: Workspaces) -> None:
    """Some shares shout."""
    assert workspaces.store(upload("DEMO.YML"), []).topology == "DEMO.YML"


def test_an_upload_that_is_being_decided_is_not_swept(workspaces: Workspaces) -> None:
    """The reaper may come between writing and claiming; what a dead server left it takes."""
    stored = workspaces.store(upload("demo.yml"), [])
    assert workspaces.present() == []
    workspaces.keep(stored)
    assert [stored.lab_id] == workspaces.present()
    workspaces.discard(stored.lab_id)
    assert workspaces.present() == []


def test_the_log_of_a_failed_boot_outlives_its_lab_for_a_while(workspaces: Workspaces) -> None:
    """Somebody will want to read it in the morning."""
    stored = workspaces.store(upload("demo.yml"), [])
    workspaces.log(stored.lab_id).write_text("netlab says no\n")
    workspaces.keep(stored)
    workspaces.discard(stored.lab_id, keep_log=True)
    assert not workspaces.directory(stored.lab_id).exists()
    assert workspaces.log(stored.lab_id).read_text() == "netlab says no\n"
    workspaces.discard(stored.lab_id)
    assert workspaces.present() == []
