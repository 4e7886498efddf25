"""The database while a server runs: locked, on a full disk, gone, damaged; and backups that become a server's state."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import requests
from harness import CALL_SECONDS, STANDIN, Server, running, wait_until

PLAIN = "nodes: [ r1 ]\n"
SLOW_UP = "nodes: [ r1 ]\nstandin: { up_seconds: 1 }\n"
DISK_MIB = 48


def database_of(server: Server) -> Path:
    return server.state_dir / "remote-lab.sqlite3"


def refused(response: requests.Response) -> tuple[int, str, bool]:
    """Status, code, and whether it says when to ask again."""
    return response.status_code, response.json()["code"], "Retry-After" in response.headers


def says(server: Server, *words: object, status: int = 0) -> str:
    """What a command prints beside a server."""
    command = [sys.executable, "-m", "remote_lab", *map(str, words)]
    done = subprocess.run(
        command, env=server.environment, capture_output=True, text=True, timeout=CALL_SECONDS, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def is_well(server: Server) -> bool:
    return server.call("GET", "/healthz").status_code == 204


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process, as far as SQLite knows, that keeps a write transaction open."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")


def test_a_database_that_somebody_has_locked(standin: Server) -> None:
    """Who only looks is answered; who wants a change is told to come again, and monitoring hears of it."""
    ids = [standin.open_session() for _ in range(2)]
    with locked(database_of(standin)):
        assert refused(standin.call("POST", "/session")) == (503, "database_unavailable", True)
        assert [standin.status(one) for one in ids] == [("active", 0), ("waiting", 1)]
        assert standin.call("POST", "/session/heartbeat", ids[1]).status_code == 204
        unwell = standin.call("GET", "/healthz")
        assert "locked by another process" in unwell.json()["detail"]
        assert refused(unwell) == (503, "database_unavailable", True)
    wait_until(lambda: is_well(standin), "the server is well again by itself")
    assert standin.acquire(ids[0], PLAIN).status_code == 200
    assert standin.open_session() is not None
    assert [standin.status(one) for one in ids] == [("active", 0), ("waiting", 1)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own for a state folder."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Leave not one byte."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return filler


def test_a_disk_that_is_full(small_disk: Path) -> None:
    """Sessions and labs that are there go on, what needs the disk is refused, a boot waits for it; then all goes on."""
    server = Server(small_disk / "state", PROVIDER="clab", NETLAB=STANDIN, SLOTS=2, REAPER_SECONDS=0.2, TRUST_UPLOADS=1)
    server.log = small_disk.parent / "server.log"
    with running(server):
        first, second, third = (server.open_session() for _ in range(3))
        assert server.acquire(first, PLAIN).status_code == 200
        booting = server.call(
            "POST",
            "/lab",
            second,
            files={"topology": ("slow.yml", SLOW_UP)},
            headers={"Prefer": "respond-async"},
        )
        assert booting.status_code == 202
        wait_until(lambda: "topo=slow.yml | Boot: config" in server.log.read_text(), "netlab is at work")
        filler = fill(small_disk)
        try:
            upload = server.acquire(first, PLAIN + "# another lab\n")
            assert refused(upload) == (503, "storage_full", True)
            assert "no space left on device" in upload.json()["detail"]
            assert refused(server.acquire(first, PLAIN)) == (503, "database_unavailable", True)
            assert "nothing can be recorded" in server.call("POST", "/session").json()["detail"]
            assert server.call("GET", "/healthz").status_code == 503
            assert server.call("GET", "/lab", first).json()["running"]
            assert server.status(third) == ("waiting", 2)
            wait_until(lambda: "cannot be put on record yet" in server.log.read_text(), "the boot waits for the disk")
        finally:
            filler.unlink()
        wait_until(lambda: is_well(server), "the server is well again by itself")
        wait_until(lambda: server.call("GET", "/lab", second).json()["running"], "the lab that waited runs")
        assert server.acquire(first, PLAIN).json()["reused"]
        server.end_session(first)
        server.wait_active(third)
        assert server.acquire(third, PLAIN).status_code == 200


def test_a_database_that_was_removed_under_the_server(standin: Server) -> None:
    """SQLite would go on with a file without a name and begin an empty one: monitoring hears of it, none is made."""
    standin.open_session()
    aside = database_of(standin).rename(standin.state_dir / "aside")
    try:
        unwell = standin.call("GET", "/healthz")
        assert (unwell.status_code, "removed or replaced" in unwell.json()["detail"]) == (503, True)
        assert not database_of(standin).exists()
    finally:
        aside.rename(database_of(standin))
    assert is_well(standin)


def test_a_truncated_database_is_refused_and_its_backup_restored(standin: Server, tmp_path: Path) -> None:
    """With one command, which the refusal names; who had a place has it again."""
    ids = [standin.open_session() for _ in range(3)]
    copy = standin.state_dir / "backups" / "mine.sqlite3"
    copy.parent.mkdir(exist_ok=True)
    says(standin, "db", "backup", copy)
    assert "stop it first" in says(standin, "db", "restore", copy, status=1)
    standin.terminate()
    os.truncate(database_of(standin), database_of(standin).stat().st_size // 2)
    assert standin.spawn().wait(CALL_SECONDS) == 1
    last = standin.log.read_text().splitlines()[-1]
    assert f"remote-lab db restore {copy}" in last
    assert str(copy) in says(standin, "doctor", status=1)
    assert "is what" in says(standin, "db", "restore", copy)
    standin.start()
    assert [standin.status(one) for one in ids] == [("active", 0), ("waiting", 1), ("waiting", 2)]
    assert len(list(standin.state_dir.glob("*.replaced-*Z"))) == 1


def test_a_backup_made_under_load_is_the_state_of_another_server(
    serve: Callable[..., Server], standin: Server, tmp_path: Path
) -> None:
    """Restored into a folder of its own: the queue as it was at some moment, in order and without a gap."""
    opened: list[str] = []
    enough = threading.Event()

    def come_in() -> None:
        while not enough.is_set():
            opened.append(standin.open_session())

    coming = threading.Thread(target=come_in)
    coming.start()
    copy = tmp_path / "copy.sqlite3"
    try:
        wait_until(lambda: len(opened) > 20, "sessions come in")
        says(standin, "db", "backup", copy)
    finally:
        enough.set()
        coming.join()
    fresh = Server(tmp_path / "fresh", PROVIDER="clab", NETLAB=STANDIN)
    says(fresh, "db", "restore", copy)
    with running(fresh):
        known = [one for one in opened if fresh.call("GET", f"/session/{one}").status_code == 200]
        assert len(known) > 20
        assert known == opened[: len(known)]
        assert [fresh.status(one)[1] for one in known[:20]] == list(range(20))
