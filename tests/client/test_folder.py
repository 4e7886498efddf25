"""The folder with keys and inventories: whose it is, and what becomes of those that were left behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from harness import CALL_SECONDS

from remote_lab.client.folder import PREFIX, PrivateFolder, remove_leftovers

HOLD = """
import sys
from remote_lab.client.folder import PrivateFolder
folder = PrivateFolder()
folder.keep_key("secret")
print(folder.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files are."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_a_killed_process_left_goes_when_the_next_folder_is_made(place: Path) -> None:
    """And not before: the folder of a process that lives is left alone."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        first = PrivateFolder()
        assert sorted([left, first.path]) == sorted(place.iterdir())
        process.send_signal(signal.SIGKILL)
        process.wait(CALL_SECONDS)
    assert (left / "ssh-key-1").read_text() == "secret"
    second = PrivateFolder()
    assert sorted([first.path, second.path]) == sorted(place.iterdir())
    first.remove()
    second.remove()
    assert list(place.iterdir()) == []


def test_a_folder_is_its_users_alone() -> None:
    """It and the key in it."""
    folder = PrivateFolder()
    key = folder.keep_key("secret")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder.path, key)] == [0o700, 0o600]
    folder.remove()
    folder.remove()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to somebody else")
def test_what_is_somebody_elses_stays(place: Path) -> None:
    """A folder of another user, one that others may write, a file and a symbolic link."""
    names = [f"{PREFIX}{name}" for name in ("other", "open", "file", "link")]
    other, opened, file, link = (place / name for name in names)
    other.mkdir(mode=0o700)
    os.chown(other, 65534, 65534)
    opened.mkdir()
    opened.chmod(0o777)
    file.touch(mode=0o600)
    (place / "target").mkdir(mode=0o700)
    link.symlink_to(place / "target")
    remove_leftovers(place)
    assert sorted(path.name for path in place.iterdir()) == sorted([*names, "target"])


def test_a_folder_that_was_taken_for_a_leftover_is_made_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process looks between its making and its locking."""
    made = []
    mkdtemp = tempfile.mkdtemp

    def mkdtemp_and_sweep(prefix: str) -> str:
        made.append(mkdtemp(prefix=prefix))
        if len(made) == 1:
            remove_leftovers(place)
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp_and_sweep)
    folder = PrivateFolder()
    assert folder.path == Path(made[1])
    assert [path.name for path in place.iterdir()] == [folder.path.name]
    folder.remove()
