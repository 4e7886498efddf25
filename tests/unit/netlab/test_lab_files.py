"""Files that code of a lab may have made, read by a server that is root."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from remote_lab.netlab.lab_files import read_lab_file

SECRET = b"the host's own\n"


def test_a_file_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    """One that is too large is no file of ours."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/key").write_bytes(b"12345678")
    assert read_lab_file(tmp_path, "folder/key", 8) == b"12345678"
    assert read_lab_file(tmp_path, "folder/key", 7) is None
    assert read_lab_file(tmp_path, "folder/none", 8) is None
    assert read_lab_file(tmp_path / "nowhere", "key", 8) is None


@pytest.mark.parametrize(
    "trick",
    [
        lambda lab, host: (lab / "folder/key").symlink_to(host / "key"),
        lambda lab, host: ((lab / "folder").rmdir(), (lab / "folder").symlink_to(host)),
        lambda lab, host: (lab / "folder/key").mkdir(),
        lambda lab, host: os.mkfifo(lab / "folder/key"),
        lambda lab, host: (lab / "folder/key").symlink_to("/dev/zero"),
    ],
    ids=["link", "link of a folder", "folder", "pipe", "device"],
)
def test_nothing_but_a_file_of_the_lab_is_read(tmp_path: Path, trick: Callable[[Path, Path], object]) -> None:
    """No link leads out of the lab's folder, and nothing keeps the reader waiting."""
    lab, host = tmp_path / "lab", tmp_path / "host"
    (lab / "folder").mkdir(parents=True)
    host.mkdir()
    (host / "key").write_bytes(SECRET)
    trick(lab, host)
    assert read_lab_file(lab, "folder/key", 1000) is None
