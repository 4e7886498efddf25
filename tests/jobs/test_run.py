"""What the command of `remote-lab run` gets, and what becomes of its exit status."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest
from harness import ROOT, Server, free_port, running, wait_until

from .conftest import FAILING, QUICK, User, how_many_wait, nothing_is_left

SHOW = "import json, os; print(json.dumps({k: v for k, v in os.environ.items() if k.startswith(('REMOTE', 'ANSI'))}))"
JOIN = """
from remote_lab.client import RemoteLabClient
with RemoteLabClient() as client:
    print(client.session_id, [device.name for device in client.devices()])
"""


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", 128 + signal.SIGTERM), ("kill -KILL $$", 128 + signal.SIGKILL)],
)
def test_the_exit_status_is_that_of_the_command(server: Server, user: User, script: str, status: int) -> None:
    """128 + n after signal n, as shells count; and everything is given back."""
    user.type("run", user.write(QUICK), "--", "sh", "-c", script, status=status)
    wait_until(lambda: nothing_is_left(server, user), "nothing is left")


def test_standard_output_is_the_command_s(user: User) -> None:
    """Whatever there is to say about the lab goes to standard error."""
    done = user.type("run", user.write(QUICK), "--", "echo", "a  b")
    assert done.out == "a  b\n"
    assert "demo.yml" in done.err


def test_the_lab_comes_with_the_session(server: Server, user: User) -> None:
    """So that it can boot while the job waits."""
    user.type("run", user.write(QUICK, "brought.yml"), "--", "true")
    assert list(server.state_dir.glob("uploads/*/lab/brought.yml"))


def test_options_behind_the_dashes_are_the_command_s(user: User) -> None:
    """Also those that `run` has itself."""
    assert user.type("run", user.write(QUICK), "--", "echo", "--url", "--help").out == "--url --help\n"


@pytest.mark.parametrize(("word", "status"), [("no-such-command", 127), ("./demo.yml", 126)])
def test_a_command_that_cannot_be_started_waits_for_no_lab(tmp_path: Path, word: str, status: int) -> None:
    """The sentence and the status are those of shells, before anybody is asked for a lab."""
    user = User(f"http://127.0.0.1:{free_port()}", tmp_path)
    done = user.type("run", user.write(QUICK), "--", word, status=status)
    assert done.err.startswith(f"Error: {word}: ")


@pytest.mark.parametrize(
    "words",
    [("demo.yml",), ("nowhere.yml", "--", "true"), ("--url", "lab-host", "demo.yml", "--", "true")],
    ids=["no command", "no topology", "no address"],
)
def test_wrong_usage_is_status_2(user: User, words: tuple[str, ...]) -> None:
    """With the usage and what is wrong with it."""
    user.write(QUICK)
    assert "Usage: remote-lab run" in user.type("run", *words, status=2).err


def test_no_server_is_a_sentence(tmp_path: Path) -> None:
    """Exit status 1."""
    user = User(f"http://127.0.0.1:{free_port()}", tmp_path)
    done = user.type("run", user.write(QUICK), "--", "echo", "never", status=1)
    assert done.out == ""
    url = user.environment["REMOTE_LAB_URL"]
    sentence = (
        f"No Remote Lab Manager answers at {url}: connection refused. Is REMOTE_LAB_URL right, does the server run?"
    )
    assert done.err == f"Error: {sentence}\n"
    assert done.err.removeprefix("Error: ") in user.type("release", "--ci-job", "7", status=1).err


def test_a_boot_that_fails_shows_its_log(server: Server, user: User) -> None:
    """Exit status 1, the end of the log, and nothing is left."""
    done = user.type("run", user.write(FAILING), "--", "echo", "never", status=1)
    assert done.out == ""
    assert "told to fail in up" in done.err
    wait_until(lambda: nothing_is_left(server, user), "nothing is left")


def test_whoever_waits_too_long_leaves_the_queue(server: Server, user: User) -> None:
    """`--session-timeout` is the longest time in it."""
    holder = server.open_session()
    server.wait_active(holder)
    done = user.type("run", "--session-timeout", "0.5", user.write(QUICK), "--", "true", status=1)
    assert "0.5 s" in done.err
    assert how_many_wait(server, holder) == 0


def test_the_command_finds_its_lab_in_the_environment(server: Server, user: User) -> None:
    """The devices and an inventory of each kind, for its user's eyes only; gone when it ends."""
    script = f"{SHOW}; print(open(os.environ['REMOTE_LAB_DEVICES']).read())"
    variables, devices = user.type("run", user.write(QUICK), "--", sys.executable, "-c", script).out.split("\n", 1)
    found = json.loads(variables)
    assert found["REMOTE_LAB_URL"] == server.url
    assert found["ANSIBLE_INVENTORY"] == found["REMOTE_LAB_INVENTORY"]
    files = {Path(found[f"REMOTE_LAB_{name}"]).name for name in ("INVENTORY", "NORNIR", "SSH_CONFIG", "PYATS")}
    assert len(files) == 4
    r1, r2 = json.loads(devices)
    assert set(r1) == {"name", "host", "port", "username", "password", "key_file", "platform"}
    assert (r1["name"], r2["name"], r1["port"]) == ("r1", "r2", 22)
    assert r1["platform"]["netlab"]
    assert not Path(found["REMOTE_LAB_DEVICES"]).exists()


def test_what_is_handed_over_is_private(user: User) -> None:
    """Passwords are in there."""
    script = "cd ${REMOTE_LAB_DEVICES%/*}; find . -type f -exec stat -c %a {} + | sort -u; stat -c %a ."
    assert user.type("run", user.write(QUICK), "--", "sh", "-c", script).out == "600\n700\n"


def test_only_the_inventories_that_were_asked_for(user: User) -> None:
    """Somebody's own ANSIBLE_INVENTORY stays when none is asked for."""
    words = ("run", "--inventory", "ssh_config", user.write(QUICK), "--", sys.executable, "-c", SHOW)
    found = json.loads(user.type(*words, ANSIBLE_INVENTORY="mine").out)
    assert found["ANSIBLE_INVENTORY"] == "mine"
    assert "REMOTE_LAB_SSH_CONFIG" in found
    assert "REMOTE_LAB_INVENTORY" not in found


def test_a_client_inside_joins_the_session(user: User) -> None:
    """It does not queue behind the one it runs in, and does not end it either."""
    inner = f"{sys.executable} -c '{JOIN}'"
    first, second, session_id = user.type(
        "run", user.write(QUICK), "--", "sh", "-c", f"{inner}; {inner}; echo $REMOTE_LAB_SESSION_ID"
    ).out.splitlines()
    assert first == second == f"{session_id} ['r1', 'r2']"


def test_a_run_inside_a_run_shares_its_session(server: Server, user: User) -> None:
    """The inner one gives back its reference, not the session."""
    inner = (sys.executable, "-m", "remote_lab", "run", "demo.yml", "--", "sh", "-c", "echo $REMOTE_LAB_SESSION_ID")
    script = f'{" ".join(inner[:-1])} "{inner[-1]}"; echo $REMOTE_LAB_SESSION_ID'.replace('"echo $', '"echo \\$')
    script += f"; curl -s -H X-Session-ID:$REMOTE_LAB_SESSION_ID {server.url}/lab"
    within, outside, lab = user.type("run", user.write(QUICK), "--", "sh", "-c", script).out.splitlines()
    assert within == outside
    assert json.loads(lab)["ref_count"] == 1


def test_a_dotenv_file_says_where_the_lab_is(server: Server, tmp_path: Path) -> None:
    """As for the server; the environment wins."""
    user = User(None, tmp_path)
    user.write(f"REMOTE_LAB_URL={server.url}\n", ".env")
    assert user.type("run", user.write(QUICK), "--", "echo", "ran").out == "ran\n"
    elsewhere = f"http://127.0.0.1:{free_port()}"
    user.type("run", "demo.yml", "--", "true", status=1, REMOTE_LAB_URL=elsewhere)


def test_those_who_wait_are_told_who_has_the_lab(server: Server, user: User) -> None:
    """What `--purpose` says, otherwise which topology is used."""
    run = user.start("run", "--purpose", "a demo", user.write(QUICK), "--", "sleep", "60")
    run.wait_for("r1")
    waiting = server.open_session()
    assert "a demo" in json.dumps(server.call("GET", f"/session/{waiting}").json()["held_by"])
    run.send(signal.SIGINT)
    assert run.status() == 130


def test_extra_files_go_along(user: User, server: Server) -> None:
    """They lie beside the topology, on the lab host."""
    user.write("x", "extra.cfg")
    find = ("find", server.state_dir / "labs", "-name", "extra.cfg", "-printf", "%f\n")
    assert user.type("run", "--extra-file", "extra.cfg", user.write(QUICK), "--", *find).out == "extra.cfg\n"


@pytest.mark.lab
def test_a_real_router_answers_a_command(tmp_path: Path) -> None:
    """The line of the documentation, with labs of this machine."""
    script = (
        "until ssh -F $REMOTE_LAB_SSH_CONFIG r1 \"vtysh -c 'show ip ospf neighbor'\" | grep Full/; do sleep 1; done"
    )
    with running(Server(tmp_path / "state")) as server:
        user = User(server.url, tmp_path)
        words = ("run", ROOT / "examples" / "ospf-pair.yml", "--", "timeout", "60", "sh", "-c", script)
        assert "Full/" in user.type(*words).out
        wait_until(lambda: nothing_is_left(server, user), "nothing is left")
