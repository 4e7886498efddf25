"""Suite, script and curl session, run as their first lines say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness import CALL_SECONDS, Server, free_port, wait_until

from .conftest import EXAMPLES

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

SUITE_SECONDS = 240


def boots(server: Server) -> list[str]:
    """The topologies that were booted so far, in order."""
    return re.findall(r"[Bb]ooting lab .*?([\w-]+\.yml)", server.log.read_text())


def nothing_is_left(server: Server) -> bool:
    """No session and no lab."""
    health = server.call("GET", "/debug/health").json()
    return not health["sessions"] and not health["labs"]


def test_the_suite(server: Server, project: Path, environment: dict[str, str]) -> None:
    """Four tests on two topologies pass, in a project of their own."""
    done = subprocess.run(
        ["pytest", "-p", "no:cacheprovider"],
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SUITE_SECONDS,
        check=False,
    )
    assert "4 passed" in done.stdout, done.stdout + done.stderr
    wait_until(lambda: nothing_is_left(server), "nothing is left")


def test_the_conftest_is_three_lines(project: Path) -> None:
    """As the README promises."""
    assert len((project / "conftest.py").read_text().split("\n\n")) == 2
    assert len([line for line in (project / "conftest.py").read_text().splitlines() if line]) == 3


@pytest.mark.parametrize("command", [[sys.executable, "script.py"], ["./curl.sh"]], ids=["script", "curl"])
def test_scripts(server: Server, environment: dict[str, str], command: list[str]) -> None:
    """A router says something about OSPF, and everything is given back."""
    done = subprocess.run(
        command,
        cwd=EXAMPLES,
        env=environment | {"PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * CALL_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Neighbor|OSPF", done.stdout), done.stdout
    wait_until(lambda: nothing_is_left(server), "nothing is left")


def test_curl_ends_when_it_is_refused(server: Server, environment: dict[str, str]) -> None:
    """It waits for no session that is gone: it says why, and ends. The same where there is no server."""
    holder = server.open_session()
    server.wait_active(holder)
    output = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(["./curl.sh"], cwd=EXAMPLES, env=environment, text=True, **output) as process:
        wait_until(lambda: server.call("GET", f"/session/{holder}").json()["waiting"], "it waits")
        end = [sys.executable, "-m", "remote_lab", "session", "end", "--all"]
        subprocess.run(end, env=server.environment, check=True, capture_output=True, timeout=CALL_SECONDS)
        errors = process.communicate(timeout=CALL_SECONDS)[1]
    assert process.returncode == 22
    assert "session_not_found" in errors
    assert "Traceback" not in errors
    nowhere = environment | {"REMOTE_LAB_URL": f"http://127.0.0.1:{free_port()}"}
    done = subprocess.run(
        ["./curl.sh"], cwd=EXAMPLES, env=nowhere, capture_output=True, text=True, timeout=CALL_SECONDS, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (7, 1)
