"""`remote-lab lab`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from harness import Server, list_labs, wait_until

from .conftest import TOPOLOGY, Operator

ASYNCHRONOUS = {"Prefer": "respond-async"}


def boot_in_background(server: Server, session_id: str, told: str) -> None:
    """Upload a topology that the stand-in treats as told; returns when its boot has begun."""
    topology = {"topology": ("told.yml", f"standin: {{ {told} }}\nnodes: [ r1 ]\n")}
    assert server.call("POST", "/lab", session_id, files=topology, headers=ASYNCHRONOUS).status_code == 202
    wait_until(lambda: list(server.state_dir.glob("labs/*/lab/*.pickle")), "the boot has begun")


def test_the_only_lab_needs_no_name(operator: Operator, session_id: str) -> None:
    """Whose it is, who uses it, and its devices."""
    text = operator.says("lab", "show")
    for part in ("demo.yml", session_id, "running", "192.168.1.101"):
        assert part in text
    data = operator.data("lab", "show")
    assert (data["slot"], data["ref_count"], data["session_id"]) == (1, 1, session_id)
    assert [device["name"] for device in data["devices"]] == ["r1", "r2"]
    assert datetime.fromisoformat(data["running_at"]).utcoffset() is not None


def test_a_lab_is_named_by_its_slot_or_its_session(server: Server, operator: Operator, session_id: str) -> None:
    """With two labs a name is needed, and the refusal says which there are."""
    second = server.open_session()
    assert server.acquire(second, TOPOLOGY, name="other.yml").status_code == 200
    for name in ("2", second, second[:6]):
        assert operator.data("lab", "show", name)["topology"] == "other.yml"
    for words in (("show",), ("destroy",), ("log",), ("netlab", "--", "status")):
        assert "demo.yml in slot 1, other.yml in slot 2" in operator.complains("lab", *words)
    assert "No lab is in slot 7. There is demo.yml in slot 1" in operator.complains("lab", "show", "7")


def test_without_a_lab_that_is_said(server: Server, operator: Operator) -> None:
    """For each command, and for a session that has none."""
    session_id = server.open_session()
    for words in (("show",), ("destroy",), ("netlab", "--", "status")):
        assert "No lab is up" in operator.complains("lab", *words)
    assert f"Session {session_id[:8]} has no lab" in operator.complains("lab", "log", session_id)
    assert f"Session {session_id[:8]} has no lab" in operator.complains("lab", "show", session_id)


def test_destroying_a_lab_leaves_its_session(server: Server, operator: Operator, session_id: str) -> None:
    """It is down when the command returns, and the session may boot another."""
    assert operator.says("lab", "destroy") == "Lab demo.yml is down.\n"
    assert list_labs(server.state_dir) == []
    assert server.status(session_id)[0] == "active"
    assert server.acquire(session_id, TOPOLOGY).status_code == 200


def test_a_lab_in_use_is_spared_when_asked(server: Server, operator: Operator, session_id: str) -> None:
    """`--only-idle` takes down what nobody references."""
    assert "The server refuses: " in operator.complains("lab", "destroy", "--only-idle")
    assert server.call("POST", "/lab/release", session_id).status_code == 204
    assert operator.says("lab", "destroy", "--only-idle") == "Lab demo.yml is down.\n"


def test_a_boot_is_ended_by_destroying_it(server: Server, operator: Operator) -> None:
    """Also one that hangs."""
    session_id = server.open_session()
    boot_in_background(server, session_id, "up_hangs: true")
    assert operator.data("lab", "show")["state"] == "starting"
    assert operator.says("lab", "destroy") == "Lab told.yml is down.\n"


def test_a_teardown_that_fails_is_said(server: Server, operator: Operator) -> None:
    """With exit status 1, although the slot is free again."""
    session_id = server.open_session()
    told = "standin: { down_fails: true, down_force_fails: true }\nnodes: [ r1 ]\n"
    assert server.acquire(session_id, told, name="stuck.yml").status_code == 200
    assert "Error: lab stuck.yml went down, but " in operator.complains("lab", "destroy")


def test_without_a_server_a_lab_is_destroyed_here(make_server: Callable[..., Server], tmp_path: Path) -> None:
    """Its session stays on record for the next server."""
    server = make_server().start()
    operator = Operator(server, tmp_path)
    session_id = server.open_session()
    assert server.acquire(session_id, TOPOLOGY).status_code == 200
    server.terminate()
    assert operator.says("lab", "destroy") == "Lab demo.yml is down.\n"
    assert list_labs(server.state_dir) == []
    assert operator.data("session", "show", session_id)["state"] == "active"


def test_the_boot_log_is_printed_and_followed(server: Server, operator: Operator) -> None:
    """Followed it ends when the lab is up, whatever netlab said until then."""
    session_id = server.open_session()
    boot_in_background(server, session_id, "up_seconds: 1")
    follower = operator.run("lab", "log", "-f")
    assert follower.stdout.endswith("OK: Lab devices configured\n")
    assert follower.stderr == "Lab told.yml is running.\n"
    assert operator.says("lab", "log", session_id) == follower.stdout


def test_the_log_of_the_last_failed_boot_needs_no_name(server: Server, operator: Operator) -> None:
    """It is what an operator wants to see in the morning."""
    session_id = server.open_session()
    answer = server.acquire(session_id, "standin: { up_fails: true }\nnodes: [ r1 ]\n", name="broken.yml")
    assert answer.status_code == 500
    for words in ((), (session_id[:8],)):
        done = operator.run("lab", "log", *words)
        assert "Fatal error in netlab: told to fail in up" in done.stdout
        assert "Lab broken.yml failed: " in done.stderr


def test_netlab_wants_its_words_behind_two_dashes(operator: Operator, session_id: str) -> None:
    """Without them a lab's name and netlab's words could not be told apart."""
    for words in ((), ("validate",), ("1",), ("--",)):
        assert "remote-lab lab netlab -- validate" in operator.complains("lab", "netlab", *words, status=2)


def test_netlab_runs_on_the_host_for_its_labs(server: Server, operator: Operator, session_id: str) -> None:
    """In the lab's folder, whether a server runs or not."""
    assert "r1 Up 2 seconds" in operator.says("lab", "netlab", "--", "status")
    assert '"id": 2' in operator.says("lab", "netlab", session_id[:8], "--", "inspect", "--node", "r2")
    server.terminate()
    assert "r1 Up 2 seconds" in operator.says("lab", "netlab", "1", "--", "status")
    server.start()


@pytest.mark.lab
def test_netlab_runs_in_the_sandbox_of_a_lab(make_server: Callable[..., Server], tmp_path: Path) -> None:
    """Real netlab in a real pod: status, a command on a device, its exit status, with and without a server."""
    server = make_server(PROVIDER="netns")
    server.start()
    operator = Operator(server, tmp_path)
    session_id = server.open_session()
    topology = "defaults.device: linux\nnodes: [ h1, h2 ]\nlinks: [ h1-h2 ]\n"
    answer = server.acquire(session_id, topology, name="hosts.yml")
    assert answer.status_code == 200, answer.text
    assert "hosts.yml" in operator.says("lab", "show")
    assert "h2" in operator.says("lab", "netlab", "--", "status")
    assert "0% packet loss" in operator.says("lab", "netlab", "--", "exec", "h1", "ping", "-c1", "h2")
    operator.run("lab", "netlab", "--", "inspect", "--node", "nowhere", status=1)
    server.terminate()
    assert operator.says("lab", "netlab", "--", "connect", "h2", "hostname").strip().endswith("h2")
    operator.says("session", "end", "--all")
    assert list_labs(server.state_dir) == []


def test_control_characters_of_a_lab_stay_out_of_a_terminal(server: Server, operator: Operator, tmp_path: Path) -> None:
    """A log may hold whatever an upload made netlab print; a pipe gets it as it is."""
    session_id = server.open_session()
    assert server.acquire(session_id, TOPOLOGY).status_code == 200
    [lab_id] = list_labs(server.state_dir)
    log = server.state_dir / "labs" / lab_id / "boot.log"
    log.write_bytes(b"red \x1b[31mtext\x1b[0m \x1b]0;title\x07\n")
    assert "\x1b]0;title\x07" in operator.says("lab", "log")
    command = f"{sys.executable} -m remote_lab lab log"
    terminal = subprocess.run(
        ["script", "-qec", command, "/dev/null"],
        env=operator.server.environment,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert terminal.stdout.strip() == "red text ?]0;title?"
