"""schemathesis reads /openapi.json of a running server, calls everything in every wrong way, and believes no answer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from doors import Door
from effort import LONG, choose_seed
from harness import STANDIN, Server, running

from remote_lab.netlab.pod_site import missing_requirements

EXAMPLES = 400 if LONG else 15
FUZZ_SECONDS = 240 if LONG else 8
NOTHING_DONE = "Empty test suite"
HERE = Path(__file__).parent
CALL_BY_CALL = "examples,coverage,fuzzing"
SETTINGS = {"MAX_UPLOAD_BYTES": 100_000, "MAX_WAITING": 1_000_000, "REAPER_SECONDS": 0.5, "WAITING_SECONDS": 5}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A stand-in for netlab behind a real server, with room for everybody who is opened and forgotten."""
    with running(Server(tmp_path / "state", PROVIDER="clab", NETLAB=STANDIN, **SETTINGS)) as server:
        yield server


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    """The same behind tokens, of which none is limited."""
    with running(Door(tmp_path / "state", PROVIDER="clab", NETLAB=STANDIN, **SETTINGS)) as door:
        yield door


def fuzz(server: Server, folder: Path, phases: str, *options: str) -> None:
    """Run schemathesis against a server; fail with what it says when it found something, or did nothing."""
    said = run_schemathesis(server, folder, phases, FUZZ_SECONDS, *options)
    if NOTHING_DONE in said:  # its time was over before its first call, on a machine that does much else
        said = run_schemathesis(server, folder, phases, 10 * FUZZ_SECONDS, *options)
    assert "generated, " in said
    assert "Traceback" not in server.log.read_text()
    assert server.call("GET", "/healthz").status_code == 204


def run_schemathesis(server: Server, folder: Path, phases: str, seconds: int, *options: str) -> str:
    """Let it look for so long; returns what it says, fails with it when it found something."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")),
        *("run", f"{server.url}/openapi.json", "--phases", phases, "--seed", str(choose_seed())),
        *("--max-examples", str(EXAMPLES), "--max-time", str(seconds), "--no-color", "--continue-on-failure"),
        *("--generation-database", "none", "--request-timeout", "60", "--suppress-health-check", "all", *options),
    ]
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(HERE)}
    said = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout[-20_000:] + said.stderr[-2000:]
    return said.stdout


@contextmanager
def holding_a_lab(server: Server, topology: str = "nodes: [ r1 ]\n") -> Iterator[tuple[str, str]]:
    """A session that is active and a lab that runs; gives the options with which schemathesis has them."""
    session_id = server.open_session()
    try:
        server.wait_active(session_id)
        answer = server.acquire(session_id, topology)
        assert answer.status_code == 200, answer.text
        yield "-H", f"X-Session-ID: {session_id}"
    finally:
        server.end_session(session_id)


@pytest.mark.timeout(900)
def test_anybody(server: Server, tmp_path: Path) -> None:
    """Without a session that is active: no 500, no status and no field that the document does not have."""
    fuzz(server, tmp_path, CALL_BY_CALL)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("phases", [CALL_BY_CALL, "stateful"], ids=["calls", "chains"])
def test_the_owner_of_a_session(server: Server, tmp_path: Path, phases: str) -> None:
    """With a session that is active and a lab that runs, call by call and in chains of calls."""
    with holding_a_lab(server) as options:
        fuzz(server, tmp_path, phases, *options)


@pytest.mark.timeout(900)
def test_the_owner_of_a_token(door: Door, tmp_path: Path) -> None:
    """The same where tokens are asked for."""
    with holding_a_lab(door) as options:
        fuzz(door, tmp_path, CALL_BY_CALL, *options, "-H", f"Authorization: Bearer {door.token}")


@pytest.mark.lab
@pytest.mark.timeout(900)
@pytest.mark.skipif(bool(missing_requirements()), reason="no real labs here")
def test_the_owner_of_a_real_lab(tmp_path: Path) -> None:
    """Devices, keys, states and logs of a real lab are what the document says as well."""
    with running(Server(tmp_path / "state", PROVIDER="netns", **SETTINGS)) as server:
        topology = "provider: netns\ndefaults.device: linux\nnodes: [ h1 ]\n"
        with holding_a_lab(server, topology) as options:
            fuzz(server, tmp_path, CALL_BY_CALL, *options)
