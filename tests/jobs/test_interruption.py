"""Signals at every stage of `remote-lab run`: whatever comes when, nothing is left behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from harness import STANDIN, Server, running, wait_until

from .conftest import ENDING, HANGING, QUICK, HoldingProxy, User, how_many_wait, make_user, nothing_is_left

DEAF = "trap '' INT TERM HUP; echo deaf; while :; do sleep 0.1; done"


@pytest.mark.parametrize("signum", ENDING)
def test_in_the_queue(server: Server, user: User, signum: signal.Signals) -> None:
    """The place in the queue is given back."""
    holder = server.open_session()
    server.wait_active(holder)
    run = user.start("run", user.write(QUICK), "--", "echo", "never")
    wait_until(lambda: how_many_wait(server, holder) == 1, "it waits")
    run.send(signum)
    assert run.status() == 128 + signum
    assert how_many_wait(server, holder) == 0
    server.end_session(holder)
    wait_until(lambda: nothing_is_left(server, user), "nothing is left")
    assert run.out == ""


@pytest.mark.parametrize("signum", ENDING)
def test_while_the_session_is_opened(server: Server, tmp_path: Path, signum: signal.Signals) -> None:
    """The server has opened it, the client does not know its id yet: it is given back all the same."""
    with HoldingProxy(server.url, "POST", "/session").serving() as proxy:
        user = User(proxy.url, tmp_path)
        run = user.start("run", user.write(QUICK), "--", "echo", "never")
        assert proxy.answered.wait(30)
        run.send(signum)
        run.wait_for(signum.name)
        proxy.let_go.set()
        assert run.status() == 128 + signum
    wait_until(lambda: nothing_is_left(server, user), "nothing is left")


@pytest.mark.parametrize("signum", ENDING)
def test_during_the_boot(server: Server, user: User, signum: signal.Signals) -> None:
    """The boot is ended with the session."""
    run = user.start("run", user.write(HANGING), "--", "echo", "never")
    wait_until(lambda: "starting" in str(server.call("GET", "/debug/health").json()["labs"]), "it boots")
    run.send(signum)
    assert run.status() == 128 + signum
    wait_until(lambda: nothing_is_left(server, user), "nothing is left")
    assert run.out == ""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_while_the_command_runs(server: Server, user: User, signum: signal.Signals) -> None:
    """The whole process group of the command is told, and has time to finish."""
    script = "trap 'echo told; exit 0' TERM HUP; sleep 60 & echo ready; wait"
    run = user.start("run", user.write(QUICK), "--", "sh", "-c", script)
    run.wait_for("ready")
    run.send(signum)
    assert run.status() == 128 + signum
    assert run.out == "ready\ntold\n"
    wait_until(lambda: nothing_is_left(server, user), "nothing is left")


def test_ctrl_c_is_the_command_s(server: Server, user: User) -> None:
    """It may go on; its exit status is what counts."""
    script = "trap 'echo told; exit 5' INT; echo ready; while :; do sleep 0.1; done"
    run = user.start("run", user.write(QUICK), "--", "sh", "-c", script)
    run.wait_for("ready")
    run.send(signal.SIGINT)
    assert run.status() == 5
    assert run.out == "ready\ntold\n"
    wait_until(lambda: nothing_is_left(server, user), "nothing is left")


def test_a_command_that_hears_nothing_is_killed(server: Server, user: User) -> None:
    """Ten seconds after SIGTERM, with all that it started."""
    run = user.start("run", user.write(QUICK), "--", "sh", "-c", DEAF)
    run.wait_for("deaf")
    began = time.monotonic()
    run.send(signal.SIGTERM)
    assert run.status() == 128 + signal.SIGTERM
    assert 9 < time.monotonic() - began < 20
    wait_until(lambda: nothing_is_left(server, user), "nothing is left")


@pytest.mark.parametrize("signum", ENDING)
def test_while_everything_is_given_back(server: Server, tmp_path: Path, signum: signal.Signals) -> None:
    """It goes on to its end, and the exit status stays that of the command."""
    with HoldingProxy(server.url, "DELETE", "/session").serving() as proxy:
        user = User(proxy.url, tmp_path)
        run = user.start("run", user.write(QUICK), "--", "sh", "-c", "exit 4")
        assert proxy.answered.wait(30)
        run.send(signum)
        if signum == signal.SIGINT:
            run.wait_for("Once more Ctrl-C leaves at once")
        proxy.let_go.set()
        assert run.status() == 4
    wait_until(lambda: nothing_is_left(server, user), "nothing is left")


def test_the_third_ctrl_c_leaves(server: Server, tmp_path: Path) -> None:
    """The second says so; the first began to give everything back."""
    with HoldingProxy(server.url, "DELETE", "/session").serving() as proxy:
        user = User(proxy.url, tmp_path)
        run = user.start("run", user.write(HANGING), "--", "true")
        wait_until(lambda: "starting" in str(server.call("GET", "/debug/health").json()["labs"]), "it boots")
        run.send(signal.SIGINT)
        assert proxy.answered.wait(30)
        run.send(signal.SIGINT)
        run.wait_for("Once more Ctrl-C leaves at once")
        run.send(signal.SIGINT)
        assert run.status() == 130
    wait_until(lambda: server.call("GET", "/active-session").status_code == 404, "the session has ended")


def test_nohup_is_left_alone(server: Server, user: User) -> None:
    """A signal that was ignored at the start stays ignored, by the command as well."""
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run = user.start("run", user.write(QUICK), "--", "sh", "-c", "kill -HUP $$; kill -HUP $PPID; echo alive")
    finally:
        signal.signal(signal.SIGHUP, old)
    assert run.status() == 0
    assert run.out == "alive\n"


def test_a_session_that_an_operator_ends_ends_the_command(server: Server, user: User) -> None:
    """Its lab is gone: it is told so and ended, exit status 1."""
    run = user.start(
        "run", user.write(QUICK), "--", "sh", "-c", "trap 'echo told; exit 0' TERM; echo on; sleep 60 & wait"
    )
    run.wait_for("on\n")
    server.end_session(server.call("GET", "/active-session").json()["session_id"])
    assert run.status() == 1
    assert run.out == "on\ntold\n"
    assert "The lab is gone: " in run.err
    wait_until(lambda: nothing_is_left(server, user), "nothing is left")


def test_a_server_that_is_away_for_a_while_ends_nothing(tmp_path: Path) -> None:
    """The command hears nothing of it; the session is given back to the server that came back."""
    server = Server(tmp_path / "state", PROVIDER="clab", NETLAB=STANDIN)
    (tmp_path / "user").mkdir()
    with running(server):
        user = next(users := make_user(server.url, tmp_path / "user"))
        flag = tmp_path / "flag"
        script = f"echo on; until [ -e {flag} ]; do sleep 0.1; done; exit 6"
        run = user.start("run", user.write(QUICK), "--", "sh", "-c", script)
        run.wait_for("on\n")
        server.terminate()
        run.wait_for("No word from the lab host, the command goes on")
        server.start()
        run.wait_for("The lab host answers again.")
        flag.touch()
        assert run.status() == 6
        wait_until(lambda: nothing_is_left(server, user), "nothing is left")
        users.close()


def test_what_kill_9_left_goes_with_the_next_run(server: Server, user: User) -> None:
    """Passwords and the key do not stay in a temporary folder for good."""
    run = user.start("run", user.write(QUICK), "--", "sh", "-c", "echo $$ on; exec sleep 60")
    run.wait_for(" on\n")
    run.send(signal.SIGKILL)
    run.status()
    os.kill(int(run.out.split()[0]), signal.SIGKILL)
    server.end_session(server.call("GET", "/active-session").json()["session_id"])
    left = user.leftovers()
    assert left != []
    user.type("run", "demo.yml", "--", "true")
    assert user.leftovers() == []
