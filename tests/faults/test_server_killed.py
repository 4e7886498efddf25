"""`kill -9` of a server, whole or in part, while it boots, ends and takes in real labs."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from footprint import HANGS, NODE, NOTHING, PLUGIN, Footprint, kill_arbiter, kill_both, kill_worker, wait_for_nothing
from harness import Server, list_labs, wait_until

Kill = Callable[[Server], None]


@pytest.mark.lab
@pytest.mark.parametrize(
    ("kill", "phase"),
    [
        (kill_both, "pod"),
        (kill_worker, "create"),
        (kill_both, "start"),
        (kill_worker, "devices"),
    ],
)
def test_killed_in_a_boot(pods: None, serve: Callable[..., Server], kill: Kill, phase: str) -> None:
    """Whoever waits for it loses the connection, nobody their place; nothing of the lab is left, the slot is free."""
    server = serve()
    first, second = server.open_session(), server.open_session()
    with ThreadPoolExecutor(1) as pool:
        cut_off = pool.submit(server.acquire, first, NODE)
        wait_until(lambda: f"Boot: {phase}" in server.log.read_text(), f"the boot has reached {phase!r}")
        kill(server)
        assert isinstance(cut_off.exception(), requests.ConnectionError)
    assert [server.status(one) for one in (first, second)] == [("active", 0), ("waiting", 1)]
    assert "Recovered 2 sessions" in server.log.read_text()
    assert server.call("GET", "/lab", first).json()["running"] is False
    wait_for_nothing(server)
    server.end_session(first)
    server.wait_active(second)


@pytest.mark.lab
def test_the_arbiter_alone_is_killed_in_a_boot(pods: None, serve: Callable[..., Server]) -> None:
    """The worker ends in order: whoever waits for the boot is told, and the next server has nothing to clean up."""
    server = serve()
    session_id = server.open_session()
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(server.acquire, session_id, HANGS, **PLUGIN)
        wait_until(lambda: "Boot: create" in server.log.read_text(), "the boot is under way")
        kill_arbiter(server)
        answer = told.result().json()
    assert (answer["code"], "the server is stopping" in answer["detail"]) == ("lab_boot_cancelled", True)
    assert server.status(session_id) == ("active", 0)
    assert Footprint.of(server) == NOTHING


@pytest.mark.parametrize("kill", [kill_worker, kill_arbiter])
def test_killed_in_a_teardown(standin: Server, kill: Kill) -> None:
    """It is done again, within its time, and the next has its turn."""
    first, second = standin.open_session(), standin.open_session()
    standin.acquire(first, "nodes: [ r1 ]\nstandin: { down_hangs: true }\n")
    standin.end_session(first)
    wait_until(lambda: "netlab down hangs" in _boot_logs(standin), "the teardown is under way")
    kill(standin)
    standin.wait_active(second)
    wait_for_nothing(standin)
    assert standin.acquire(second, "nodes: [ r1 ]\n").status_code == 200


def _boot_logs(server: Server) -> str:
    return "".join(path.read_text() for path in server.state_dir.glob("labs/*/boot.log"))


@pytest.mark.parametrize("kill", [kill_worker, kill_both])
def test_killed_in_an_upload(standin: Server, kill: Kill) -> None:
    """Half of a body came, and of another upload all is on disk but nobody has decided on it: neither leaves a file."""
    session_id = standin.open_session()
    with socket.create_connection(("127.0.0.1", standin.port)) as half:
        head = f"POST /lab HTTP/1.1\r\nHost: lab\r\nX-Session-ID: {session_id}\r\nContent-Length: 5000\r\n"
        half.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n".encode())
        undecided = standin.state_dir / "labs" / "24f01c2d-8f4e-4a5b-9c3d-1e2f3a4b5c6d"
        (undecided / "lab" / "folder").mkdir(parents=True)
        (undecided / "lab" / "demo.yml").write_text("nodes: [ r1 ]\n")
        (undecided / "boot.log").touch()
        kill(standin)
    wait_until(lambda: Footprint.of(standin) == NOTHING, "nothing of the uploads is left")
    assert standin.status(session_id) == ("active", 0)
    assert standin.acquire(session_id, "nodes: [ r1 ]\n").status_code == 200
    assert len(list_labs(standin.state_dir)) == 1
