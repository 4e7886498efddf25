"""Request ids and the log of a running server."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from harness import ROOT, STANDIN, Server, running, wait_until

TOPOLOGY = "nodes: [ r1 ]\n"


def lines_of(server: Server, part: str) -> list[str]:
    """The lines of a server's log that have this."""
    return [line for line in server.log.read_text().splitlines() if part in line]


@pytest.mark.parametrize("request_id", ["ci-4711", "a", "A.b_c-9", "x" * 128])
def test_a_sane_request_id_is_kept(server: Server, request_id: str) -> None:
    """In the answer and in the log."""
    response = server.call("GET", "/healthz", headers={"X-Request-ID": request_id})
    assert response.headers["X-Request-ID"] == request_id
    wait_until(lambda: lines_of(server, f"rid={request_id} | GET /healthz: 204"), "the request is in the log")


@pytest.mark.parametrize("request_id", ["", "x" * 129, "a b", "a|b", "ä".encode(), "a\tb"])
def test_any_other_is_replaced(server: Server, request_id: str) -> None:
    """Nobody writes into the log what they want."""
    response = server.call("GET", "/healthz", headers={"X-Request-ID": request_id})
    assert re.fullmatch("[0-9a-f]{16}", response.headers["X-Request-ID"])


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nowhere"), ("PUT", "/session"), ("GET", "/lab"), ("GET", "/docs")]
)
def test_every_answer_has_one(server: Server, method: str, path: str) -> None:
    """Refusals most of all."""
    answers = [server.call(method, path) for _ in range(2)]
    assert len({answer.headers["X-Request-ID"] for answer in answers}) == 2


def test_lines_of_a_lab_have_session_topology_and_request(server: Server, session_id: str) -> None:
    """Also those that the threads of its boot write."""
    headers = {"X-Request-ID": "boot-it"}
    files = [("topology", ("logged.yml", TOPOLOGY))]
    assert server.call("POST", "/lab", session_id, files=files, headers=headers).status_code == 200
    about = f"sid={session_id[:8]} topo=logged.yml"
    wait_until(lambda: lines_of(server, f"{about} rid=boot-it | POST /lab: 200"), "the request is in the log")
    assert lines_of(server, f"INFO | remote-lab-server | {about} | The lab is up")
    assert server.call("DELETE", "/lab?force=no", session_id, headers={"X-Request-ID": "no"}).status_code == 409
    wait_until(
        lambda: lines_of(server, f"INFO | remote-lab-server | {about} rid=no | DELETE /lab?force=no: 409"), "409"
    )


def test_session_ids_are_whole_at_debug_only(server: Server, session_id: str) -> None:
    """What operators pass on does not open anybody's lab."""
    server.call("GET", f"/session/{session_id}/nowhere")
    server.call("DELETE", f"/session/{session_id}")
    server.call("DELETE", f"/session/{session_id}")
    wait_until(lambda: lines_of(server, f"/session/{session_id[:8]}...: 404"), "the refusal is in the log")
    assert [line for line in lines_of(server, session_id) if " | DEBUG | " not in line] == []


def test_what_clients_send_cannot_forge_lines(server: Server) -> None:
    """Every line begins as lines do."""
    server.call("GET", "/nowhere%0a2026-01-01%2000:00:00%20|%20ERROR%20|%20forged?x=%0aforged")
    wait_until(lambda: lines_of(server, "/nowhere%0A2026-01-01"), "the request is in the log")
    assert [line for line in lines_of(server, "forged") if not re.match(r"\d{4}-\d\d-\d\d .* \| rid=", line)] == []


def test_refusals_are_logged_at_info_and_asking_again_is_not(server: Server, waiting_id: str) -> None:
    """A client that polls while it waits writes nothing that anybody reads."""
    for path, session_id in (("/lab", waiting_id), ("/lab", "nobody")):
        server.call("GET", path, session_id, headers={"X-Request-ID": f"level-{session_id[:6]}"})
    wait_until(lambda: lines_of(server, "rid=level-nobody | GET /lab: 404"), "the requests are in the log")
    assert "| INFO |" in lines_of(server, "rid=level-nobody | GET /lab: 404")[0]
    assert "| DEBUG |" in lines_of(server, f"rid=level-{waiting_id[:6]} | GET /lab: 423")[0]


def serve(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Try to start a server that cannot start."""
    server = Server(tmp_path / "state", PROVIDER="clab", NETLAB=STANDIN)
    command = [sys.executable, "-m", "remote_lab", "serve", "--port", str(server.port), *options]
    return subprocess.run(command, env=server.environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("version: [", "it is not YAML"),
        ("", "it is a NoneType, not a mapping"),
        ("version: 1\nhandlers: {h: {class: logging.NoSuchHandler}}\nroot: {handlers: [h]}", "NoSuchHandler"),
        ("version: 1\nhandlers: {h: {class: logging.StreamHandler, color: 1}}\nroot: {handlers: [h]}", "color"),
        ("version: 1\nroot: {handlers: [nobody]}", "nobody"),
        ("version: 1\nhandlers: {h: {class: logging.StreamHandler}}\nroot: {handlers: [h], level: LOUD}", "LOUD"),
        ("version: 1\nhandlers: {h: {class: logging.StreamHandler}}\nroot: {handlers: [h]}\nlevel: INFO", "'level'"),
        (
            "version: 1\nhandlers: {h: {class: logging.FileHandler, filename: /nowhere/x}}\nroot: {handlers: [h]}",
            "/nowhere/x",
        ),
    ],
)
def test_a_broken_log_config_stops_the_start(tmp_path: Path, text: str, why: str) -> None:
    """With the file and the reason, exit status 1, and before the state folder is touched."""
    path = tmp_path / "log.yml"
    path.write_text(text)
    ended = serve(tmp_path, "--log-config", str(path))
    assert ended.returncode == 1, ended.stderr
    assert f"The log configuration '{path}' cannot be used: " in ended.stderr
    assert why in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "state").exists()


def test_a_log_config_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    """It says which file."""
    ended = serve(tmp_path, "--log-config", str(tmp_path / "absent.yml"))
    assert ended.returncode in (1, 2)
    assert str(tmp_path / "absent.yml") in ended.stderr


def documented_log_config() -> str:
    """The example of docs/operations.rst."""
    text = (ROOT / "docs" / "operations.rst").read_text()
    found = re.search(r"\.\. code-block:: yaml\n\n((?:   .*\n)*   version: 1\n(?:   .*\n)*)", text)
    assert found is not None
    return textwrap.dedent(found[1])


def test_the_documented_log_config_takes_the_place_of_our_own(tmp_path: Path) -> None:
    """Lines of gunicorn included; the filter gives them what our format has."""
    path, log = tmp_path / "log.yml", tmp_path / "own.log"
    path.write_text(documented_log_config().replace("/var/log/remote-lab.log", str(log)))
    server = Server(tmp_path / "state", PROVIDER="clab", NETLAB=STANDIN)
    with running(server.with_options("--log-config", str(path))):
        session_id = server.open_session()
        server.call("GET", f"/nowhere/{session_id}", session_id, headers={"X-Request-ID": "ci-4711"})
        line = f"INFO session={session_id[:8]} request=ci-4711 GET /nowhere/{session_id[:8]}...: 404"
        wait_until(lambda: line in log.read_text(), "our line")
    assert "INFO session= request= Handling signal: term" in log.read_text()
    assert "INFO | remote-lab-server | Handling signal: term" in server.log.read_text()
    assert session_id not in log.read_text() + server.log.read_text()


def test_debug_shows_what_netlab_prints(tmp_path: Path) -> None:
    """As it comes, with session and topology."""
    server = Server(tmp_path / "state", PROVIDER="clab", NETLAB=STANDIN).with_options("--debug")
    with running(server):
        session_id = server.open_session()
        assert server.acquire(session_id, TOPOLOGY, name="shown.yml").status_code == 200
        wait_until(lambda: lines_of(server, "Starting clab nodes"), "netlab's output is in the log")
        [line] = lines_of(server, "Starting clab nodes")
        assert f"sid={session_id[:8]} topo=shown.yml" in line


def test_a_healthy_start_and_end_are_a_few_lines(tmp_path: Path) -> None:
    """All in the one format."""
    server = Server(tmp_path / "state", PROVIDER="clab", NETLAB=STANDIN).with_options("--log-level", "INFO")
    with running(server):
        pass
    assert server.terminate(signal.SIGTERM) == 0
    lines = server.log.read_text().splitlines()
    assert 3 <= len(lines) <= 15, lines
    assert [
        line for line in lines if not re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \| INFO \| remote-lab-server \| ", line)
    ] == []
