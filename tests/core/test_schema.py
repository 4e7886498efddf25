"""What a start makes of a database: one of an earlier version, a damaged one, one that is not ours; and its copies."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from test_db import FIRST, LATEST, fill, migrate

from remote_lab.config import Config
from remote_lab.core import backup
from remote_lab.core.db import Database
from remote_lab.core.schema import bring_up_to_date, examine_backup
from remote_lab.errors import DatabaseUnusable


@pytest.fixture
def path(config: Config) -> Path:
    """A database with a queue, and a backup of it."""
    path = config.state_dir / "remote-lab.sqlite3"
    migrate(path, "head")
    fill(path)
    backup.back_up_by_itself(path, "daily")
    return path


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def ids(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT id FROM sessions ORDER BY ticket")]


@contextmanager
def opened(path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{path}")
    try:
        yield database
    finally:
        database.dispose()


def start(path: Path) -> None:
    """What a start does."""
    with opened(path) as database:
        bring_up_to_date(database)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite_a_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * 4096)


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_another(path: Path) -> None:
    path.unlink()
    execute(path, "CREATE TABLE cookies (name TEXT)")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (truncate, "it is damaged"),
    "a page overwritten": (overwrite_a_page, "it is damaged"),
    "garbage": (lambda path: path.write_bytes(b"not a database" * 1000), "it is no SQLite database"),
    "emptied": (lambda path: path.write_bytes(b""), "it is an empty file, and there are backups"),
    "a folder": (make_a_folder, "it cannot be read: Is a directory"),
    "foreign": (make_another, "a database of something else, with the table cookies"),
    "newer": (
        lambda path: execute(path, "UPDATE alembic_version SET version_num = '9999'"),
        "a newer version made it (schema 9999",
    ),
    "a table lost": (lambda path: execute(path, "DROP TABLE lab_references"), "it lacks the table lab_references"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_database_that_cannot_be_used_is_refused_and_left_alone(path: Path, damage: str) -> None:
    """The sentence names it, what is wrong, and the newest backup, which can be restored then."""
    ruin, what = DAMAGES[damage]
    ruin(path)
    last = backup.newest(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(DatabaseUnusable) as refusal:
        start(path)
    for part in (str(path), what, f"`remote-lab db restore {last}`"):
        assert part in refusal.value.detail
    assert (path.read_bytes() if path.is_file() else b"") == before
    assert last is not None
    if damage != "a folder":
        backup.put_in_place(last, path)
        start(path)
        assert ids(path) == [FIRST, LATEST]


def test_without_a_backup_the_refusal_says_how_to_begin_anew(path: Path) -> None:
    """With the files that SQLite keeps beside it."""
    for copy in (path.parent / backup.FOLDER).iterdir():
        copy.unlink()
    truncate(path)
    with pytest.raises(DatabaseUnusable, match=r"with remote-lab\.sqlite3-wal and .*-shm, to start empty"):
        start(path)


def test_a_read_only_database_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start and not at the first session, also when there is nothing to upgrade."""
    execute(path, "PRAGMA journal_mode=WAL")
    real = sqlite3.connect
    monkeypatch.setattr(sqlite3.dbapi2, "connect", lambda _path, **more: real(f"file:{path}?mode=ro", uri=True, **more))
    with pytest.raises(DatabaseUnusable, match="cannot be written: attempt to write a readonly database"):
        start(path)


def test_what_was_written_last_survives_a_crash(path: Path, tmp_path: Path) -> None:
    """A killed server leaves it in the file beside the database; looking at the database must not lose it."""
    with opened(path) as database:
        with database.write() as transaction:
            transaction.connection().exec_driver_sql("DELETE FROM sessions WHERE ticket = 7")
        for companion in ("", "-wal", "-shm"):
            (tmp_path / f"crashed{companion}").write_bytes(Path(f"{path}{companion}").read_bytes())
    start(tmp_path / "crashed")
    assert ids(tmp_path / "crashed") == [LATEST]


def test_without_what_was_written_last_a_start_goes_on_from_before(path: Path, tmp_path: Path) -> None:
    """The file beside the database is lost after a crash: what it had is, and nothing else."""
    with opened(path) as database:
        with database.write() as transaction:
            transaction.connection().exec_driver_sql("DELETE FROM sessions WHERE ticket = 7")
        (tmp_path / "crashed").write_bytes(path.read_bytes())
    start(tmp_path / "crashed")
    assert ids(tmp_path / "crashed") == [FIRST, LATEST]


def test_an_upgrade_can_be_taken_back(config: Config) -> None:
    """The database is copied as it was, and the copy is one that can be restored."""
    path = config.state_dir / "remote-lab.sqlite3"
    migrate(path, "0004")
    fill(path)
    start(path)
    [copy] = (path.parent / backup.FOLDER).iterdir()
    assert copy.name.endswith("-schema-0004.sqlite3")
    examine_backup(copy)
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("0004",)
    assert ids(copy) == [FIRST, LATEST]


def test_there_is_a_copy_a_day_and_five_of_them(path: Path) -> None:
    """Others that lie there are nobody's to remove."""
    folder = path.parent / backup.FOLDER
    mine = folder / "mine.sqlite3"
    backup.back_up(path, mine)
    start(path)
    assert len(list(folder.iterdir())) == 2, "there is one of today"
    for days in range(1, 9):
        for copy in folder.glob("auto-*"):
            seen = copy.stat().st_mtime - backup.EVERY_SECONDS
            os.utime(copy, (seen, seen))
        os.utime(mine, (0, 0))
        start(path)
        assert len(list(folder.glob("auto-*"))) == min(days + 1, backup.KEPT)
    assert mine.exists()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_copy_that_cannot_be_made_stops_nobody(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log says that there is none of today."""
    folder = path.parent / backup.FOLDER
    for copy in folder.iterdir():
        copy.unlink()
    folder.rmdir()
    folder.write_text("in the way")
    start(path)
    assert "There is no backup of today" in caplog.text


@pytest.mark.parametrize("what", ["nothing", "garbage", "empty", "foreign"])
def test_what_is_no_backup_is_not_restored(path: Path, tmp_path: Path, what: str) -> None:
    """It is looked at before anything is replaced."""
    file = tmp_path / "backup"
    if what == "garbage":
        file.write_text("garbage")
    elif what == "empty":
        file.touch()
    elif what == "foreign":
        execute(file, "CREATE TABLE cookies (name TEXT)")
    with pytest.raises(DatabaseUnusable, match="is no backup that can be restored"):
        examine_backup(file)


def test_a_restore_keeps_what_it_replaces(path: Path, tmp_path: Path) -> None:
    """With what a crash left beside it, which must not be written into the restored one."""
    copy = tmp_path / "copy.sqlite3"
    backup.back_up(path, copy)
    crashed = tmp_path / "crashed" / path.name
    crashed.parent.mkdir()
    with opened(path) as database:
        with database.write() as transaction:
            transaction.connection().exec_driver_sql("DELETE FROM sessions WHERE ticket = 7")
        for companion in ("", "-wal", "-shm"):
            Path(f"{crashed}{companion}").write_bytes(Path(f"{path}{companion}").read_bytes())
    before = backup.put_in_place(copy, crashed)
    assert ids(crashed) == [FIRST, LATEST]
    assert before is not None
    assert ids(before) == [LATEST]
    assert crashed.stat().st_mode & 0o777 == 0o600
