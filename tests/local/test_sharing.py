"""Several processes and one server."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from harness import CALL_SECONDS

from remote_lab import local

from .conftest import Home


def test_processes_of_one_run_get_one_server(home: Home) -> None:
    """A worker that dies leaves it to the others, its successor gets it again, the last one ends it."""
    first, second = home.start(watch_pid=os.getpid()), home.start(watch_pid=os.getpid())
    urls = {home.obtained(user)["url"] for user in (first, second)}
    assert len(urls) == 1
    first.kill()
    first.wait()
    successor = home.start(watch_pid=os.getpid(), ending="stop")
    assert home.obtained(successor)["url"] in urls
    successor.wait(CALL_SECONDS)
    assert requests.get(f"{urls.pop()}/healthz", timeout=CALL_SECONDS).status_code == 204
    second.kill()
    second.wait()
    home.obtain().stop()
    home.wait_until_gone()


def test_another_process_may_stop_it_for_all(home: Home) -> None:
    """`local.stop` does not ask who uses it."""
    user = home.start(watch_pid=os.getpid())
    home.obtained(user)
    assert home.stop() == []
    user.kill()
    user.wait()
    home.wait_until_gone()


def test_threads_that_come_together_get_one_server(home: Home) -> None:
    """The second waits for the first."""
    with ThreadPoolExecutor(4) as pool:
        servers = list(pool.map(lambda _: home.obtain(), range(4)))
    assert len({server.url for server in servers}) == 1
    for server in servers:
        server.stop()
    assert not home.run_dir().exists()


def test_the_folder_of_a_run_is_private(home: Home) -> None:
    """So is the note of its session, which is a key to the lab."""
    run_dir = home.run_dir()
    run_dir.mkdir(mode=0o755)
    url = home.obtain().url
    assert local.noted_session(run_dir) is None
    local.note_session(run_dir, url, "abc")
    assert local.noted_session(run_dir) == (url, "abc")
    assert stat.S_IMODE(run_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE((run_dir / "session.json").stat().st_mode) == 0o600


def test_nobody_to_watch_is_said(home: Home) -> None:
    """A pid that no process has."""
    with pytest.raises(ValueError, match="no process 4194305"):
        local.obtain(home.run_dir(), 4194305, home.environment, print)
