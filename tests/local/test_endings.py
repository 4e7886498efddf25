"""However a run ends, nothing of its server is left."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
import requests
from harness import CALL_SECONDS, wait_until

from remote_lab import local

from .conftest import TOPOLOGY, Home

HANGS = "nodes: [ r1 ]\nstandin: { up_hangs: true }\n"
SLOW_DOWN = "nodes: [ r1 ]\nstandin: { down_seconds: 3 }\n"


def wait_for_lab(home: Home, has: dict[str, str]) -> None:
    """Wait until the lab of a user process runs."""

    def runs() -> bool:
        headers = {"X-Session-ID": has["session_id"]}
        answer = requests.get(f"{has['url']}/lab", headers=headers, timeout=CALL_SECONDS)
        return answer.status_code == 200 and answer.json()["state"] == "running"

    wait_until(runs, "the lab runs")


@pytest.mark.parametrize("ending", ["stop", "exit", "break", "leave"])
def test_a_process_that_ends_leaves_nothing(home: Home, ending: str) -> None:
    """In order, by os._exit, by a crash, and without a word: the lab goes down by netlab, then all the rest."""
    user = home.start(topology=TOPOLOGY, ending=ending)
    has = home.obtained(user)
    assert (has["joined"], has["provider"]) == (False, "clab")
    assert user.wait(CALL_SECONDS) == {"exit": 7, "break": 1}.get(ending, 0)
    home.wait_until_gone()
    assert home.commands().count("down") == 1


@pytest.mark.parametrize(
    ("number", "topology"),
    [
        (signal.SIGKILL, TOPOLOGY),
        (signal.SIGKILL, HANGS),
        (signal.SIGKILL, SLOW_DOWN),
        (signal.SIGINT, TOPOLOGY),
        (signal.SIGHUP, TOPOLOGY),
        (signal.SIGTERM, TOPOLOGY),
    ],
)
def test_a_process_group_that_is_ended_leaves_nothing(home: Home, number: signal.Signals, topology: str) -> None:
    """By kill -9, Ctrl-C, a closed terminal, kill; with a lab that runs, that boots for ever, that goes down slowly."""
    user = home.start(topology=topology)
    has = home.obtained(user)
    wait_until(lambda: "up" in home.commands(), "netlab is at work")
    if topology != HANGS:
        wait_for_lab(home, has)
    os.killpg(user.pid, number)
    user.wait(CALL_SECONDS)
    home.wait_until_gone()
    assert "down" in home.commands()


def test_a_stop_returns_when_all_is_gone(home: Home) -> None:
    """And the server has answered until then; to stop it again does nothing."""
    server = home.obtain()
    assert requests.get(f"{server.url}/healthz", timeout=CALL_SECONDS).status_code == 204
    server.stop()
    assert not home.run_dir().exists()
    wait_until(lambda: not home.processes(), "the guard's process has gone")
    server.stop()


def test_a_server_that_is_killed_is_started_again(home: Home, kill: Callable[[int], None]) -> None:
    """On the same address with the same lab; and both are gone after the run."""
    user = home.start(topology=TOPOLOGY)
    has = home.obtained(user)
    wait_for_lab(home, has)
    killed = home.processes("remote_lab serve")
    assert len(killed) == 2
    for pid in killed:
        kill(pid)
    wait_until(lambda: home.processes("remote_lab serve").keys() - killed, "another server was started")

    def answers() -> bool:
        try:
            return requests.get(f"{has['url']}/healthz", timeout=CALL_SECONDS).status_code == 204
        except requests.ConnectionError:
            return False

    wait_until(answers, "it answers at the same place")
    wait_for_lab(home, has)
    kill(user.pid)
    home.wait_until_gone()
    assert home.commands().count("down") == 1


def test_a_server_killed_with_its_user_leaves_nothing(home: Home, kill: Callable[[int], None]) -> None:
    """The guard alone has survived: it starts the server once more to take the lab down in order."""
    user = home.start(topology=SLOW_DOWN)
    wait_for_lab(home, home.obtained(user))
    for pid in (user.pid, *home.processes("remote_lab serve")):
        kill(pid)
    home.wait_until_gone()
    assert "down" in home.commands()


def test_a_killed_guard_is_cleaned_up_after_by_the_next_run(home: Home, kill: Callable[[int], None]) -> None:
    """The server ends at once, the lab when somebody obtains a server again, who is told."""
    user = home.start("killed", topology=TOPOLOGY)
    wait_for_lab(home, home.obtained(user))
    kill(home.guard_pid("killed"))
    kill(user.pid)
    user.wait(CALL_SECONDS)
    wait_until(lambda: not home.processes(), "the server has ended")
    assert "down" not in home.commands()
    said: list[str] = []
    server = home.obtain("next", said)
    assert not home.run_dir("killed").exists()
    assert home.commands().count("down") == 1
    assert said[0] == (f"An earlier run was killed; what it left is taken down ({home.run_dir('killed')}).")
    server.stop()
    home.wait_until_gone("next")


def test_a_killed_guard_is_cleaned_up_after_by_a_stop(home: Home, kill: Callable[[int], None]) -> None:
    """Its run goes on, and takes everything down at its end."""
    server = home.obtain()
    session_id = requests.post(f"{server.url}/session", timeout=CALL_SECONDS).json()["session_id"]
    upload = {"topology": ("demo.yml", TOPOLOGY)}
    headers = {"X-Session-ID": session_id}
    requests.post(f"{server.url}/lab", headers=headers, files=upload, timeout=CALL_SECONDS).raise_for_status()
    kill(home.guard_pid())
    assert home.stop() == []
    home.wait_until_gone()
    assert home.commands().count("down") == 1


def test_a_run_that_goes_on_is_no_leftover(home: Home) -> None:
    """Another run of the same user leaves it alone."""
    one, other = home.obtain("one"), home.obtain("other")
    assert requests.get(f"{one.url}/healthz", timeout=CALL_SECONDS).status_code == 204
    other.stop()
    assert requests.get(f"{one.url}/healthz", timeout=CALL_SECONDS).status_code == 204
    one.stop()
    home.wait_until_gone("one")


def test_entries_of_somebody_else_are_not_believed(home: Home) -> None:
    """Root would remove what they name."""
    victim = home.folder / "victim"
    victim.mkdir()
    home.obtain().stop()
    run = local.runs.Run(victim)
    local.runs.Runs(home.environment).add(run, is_joined=False)
    (entry,) = home.runs.iterdir()
    entry.write_text(entry.read_text().replace(f'"pid": {os.getpid()}', '"pid": 4194305'))
    for folder in (home.runs, victim):
        os.chown(folder, 65534, 65534)
        home.obtain().stop()
        assert victim.exists()
        os.chown(folder, os.geteuid(), os.getegid())
    home.obtain().stop()
    assert not victim.exists()
