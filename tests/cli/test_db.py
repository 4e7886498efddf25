"""`remote-lab db`."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from harness import Server

from .conftest import Operator


def test_a_backup_of_a_running_server_can_be_restored(server: Server, operator: Operator, session_id: str) -> None:
    """While sessions come in: a single file for its owner only, with everything until then, that a server starts on."""
    busy = threading.Event()
    opened: list[str] = []

    def come_in() -> None:
        while not busy.is_set():
            opened.append(server.open_session())

    coming = threading.Thread(target=come_in)
    coming.start()
    try:
        assert "backup.sqlite3" in operator.says("db", "backup", "backup.sqlite3")
    finally:
        busy.set()
        coming.join()
    backup = operator.folder / "backup.sqlite3"
    assert backup.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(f"{backup.as_uri()}?mode=ro", uri=True)) as copy, copy:
        ids = [row[0] for row in copy.execute("SELECT id FROM sessions ORDER BY ticket")]
        (verdict,) = copy.execute("PRAGMA integrity_check").fetchone()
    copy.close()
    assert verdict == "ok"
    assert ids == [session_id, *opened][: len(ids)]
    assert [path.name for path in operator.folder.iterdir() if "backup" in path.name] == ["backup.sqlite3"]
    server.terminate()
    for name in ("remote-lab.sqlite3", "remote-lab.sqlite3-wal", "remote-lab.sqlite3-shm"):
        (server.state_dir / name).unlink(missing_ok=True)
    shutil.copy(backup, server.state_dir / "remote-lab.sqlite3")
    server.start()
    assert server.status(session_id) == ("active", 0)
    assert server.call("GET", "/lab", session_id).json()["running"]


def test_a_backup_never_replaces_a_file(server: Server, operator: Operator) -> None:
    """Nor leaves a part of itself where it cannot be written."""
    kept = operator.folder / "kept"
    kept.write_text("yesterday's")
    assert "never replaces a file" in operator.complains("db", "backup", "kept")
    assert kept.read_text() == "yesterday's"
    before = sorted(operator.folder.iterdir())
    assert "cannot be written" in operator.complains("db", "backup", "nowhere/backup")
    assert sorted(operator.folder.iterdir()) == before


def test_there_is_nothing_to_back_up_before_the_first_start(make_server: Callable[..., Server], tmp_path: Path) -> None:
    """A file that is empty would look like a backup."""
    assert "does not exist" in Operator(make_server(), tmp_path).complains("db", "backup", "backup")
    assert not (tmp_path / "backup").exists()


def test_an_old_database_is_read_after_an_upgrade(make_server: Callable[..., Server], tmp_path: Path) -> None:
    """Before it the commands say what to do, and change nothing."""
    server = make_server()
    operator = Operator(server, tmp_path)
    server.state_dir.mkdir()
    sqlite3.connect(server.state_dir / "remote-lab.sqlite3").close()
    assert "remote-lab db upgrade" in operator.complains("session", "list")
    assert "has the schema of version 0." in operator.says("db", "upgrade")
    assert operator.says("session", "list") == "The queue is empty.\n"
