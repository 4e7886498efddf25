"""`remote-lab run` without a URL, with labs of this machine."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROOT, processes_named, wait_until

from .conftest import User, make_user

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

PAIR = ROOT / "examples" / "ospf-pair.yml"


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    """Somebody who knows of no lab host, in a home of their own."""
    for user in make_user(None, tmp_path):
        user.environment["HOME"] = str(tmp_path)
        yield user


def nothing_is_left(user: User) -> bool:
    """No server, no guard, no sandbox, no file: all of them have the user's folder in their command lines."""
    return processes_named(str(user.folder)) == [] and user.leftovers() == []


def test_a_bare_machine_is_enough(user: User) -> None:
    """A server of this run boots the lab, and is gone with it when the command is returned from."""
    done = user.type("run", PAIR, "--", "sh", "-c", 'ssh -F "$REMOTE_LAB_SSH_CONFIG" r2 hostname; exit 5', status=5)
    assert done.out == "r2\n"
    wait_until(lambda: nothing_is_left(user), "nothing is left", 5)


def test_ctrl_c_while_the_server_starts_leaves_nothing(user: User) -> None:
    """It need not be there yet: whatever was begun is taken down."""
    run = user.start("run", PAIR, "--", "echo", "never")
    wait_until(lambda: list(user.folder.glob("tmp/remote-lab-run-*/guard.log")), "a server is asked for")
    run.send(signal.SIGINT)
    assert run.status() == 130
    wait_until(lambda: nothing_is_left(user), "nothing is left", 60)
    assert run.out == ""


@pytest.mark.parametrize("stage", ["booting", "up\n"])
def test_ctrl_c_leaves_nothing(user: User, stage: str) -> None:
    """While the lab boots, and while the command runs."""
    run = user.start("run", PAIR, "--", "sh", "-c", "echo up; exec sleep 60")
    run.wait_for(stage)
    run.send(signal.SIGINT)
    assert run.status() == 130
    wait_until(lambda: nothing_is_left(user), "nothing is left", 60)


def test_kill_9_leaves_nothing(user: User) -> None:
    """The guard takes down what is left."""
    run = user.start("run", PAIR, "--", "sh", "-c", "echo up; exec sleep 5")
    run.wait_for("up\n")
    run.send(signal.SIGKILL)
    run.process.wait()
    wait_until(lambda: processes_named(str(user.folder)) == [], "no process is left", 60)
    wait_until(
        lambda: not [name for name in user.leftovers() if name.startswith("remote-lab-run-")], "no folder is left"
    )
