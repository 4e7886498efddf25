"""Real server processes for tests, and the few HTTP calls everybody needs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

START_SECONDS = 60.0
CALL_SECONDS = 60.0
ROOT = Path(__file__).parent.parent
STANDIN = ROOT / "tests" / "standin" / "netlab"
WITHOUT_FOREIGN_PLUGINS = " ".join(f"-p no:{name}" for name in ("anyio", "hypothesispytest", "schemathesis"))
"""For PYTEST_ADDOPTS: plugins of what tests/fuzz alone needs would cost every pytest that a test starts a second."""
ASKPASS = ROOT / "tests" / "standin" / "askpass"


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Look every 20 ms until something holds; fail with `what` otherwise."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"still not so after {seconds:g} s: {what}")
        time.sleep(0.02)


class Server:
    """`remote-lab serve` on a port and state folder of its own; `settings` are variables without their prefix."""

    def __init__(self, state_dir: Path, **settings: object) -> None:
        self.state_dir = state_dir
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        # The stand-in for netlab is told what to do by topologies that a real netlab would never get.
        trust = {"TRUST_UPLOADS": 1} if settings.get("NETLAB") == STANDIN else {}
        self.settings = {"STATE_DIR": state_dir, **trust, **settings}
        self.log = state_dir.parent / f"{state_dir.name}.log"
        self.options: tuple[str, ...] = ("--log-level", "DEBUG")
        self.token = ""
        """What calls are signed with, unless they bring a token of their own."""
        self.process: subprocess.Popen[bytes] | None = None

    def with_options(self, *options: str) -> Server:
        """The same server, started with these options of `serve` behind its port."""
        self.options = options
        return self

    @property
    def environment(self) -> dict[str, str]:
        """What the process sees: none of our variables but the settings."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith("REMOTE_LAB_")}
        if "REMOTE_LAB_IMAGE_DIR" in os.environ:
            clean["REMOTE_LAB_IMAGE_DIR"] = os.environ["REMOTE_LAB_IMAGE_DIR"]
        return clean | {f"REMOTE_LAB_{key}": str(value) for key, value in self.settings.items()}

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the process and wait for nothing."""
        command = [sys.executable, "-m", "remote_lab", "serve", "--port", str(self.port), *self.options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment, start_new_session=True
            )
        return self.process

    def start(self) -> Server:
        """Start the process and wait until it answers."""
        self.spawn()
        return self.wait_until_it_answers()

    def wait_until_it_answers(self) -> Server:
        """Wait until the server is well; fail with its log when it has ended."""
        process = self.process
        assert process is not None

        def answers() -> bool:
            assert process.poll() is None, f"the server ended with {process.returncode}:\n{self.log.read_text()}"
            try:
                return requests.get(f"{self.url}/healthz", timeout=CALL_SECONDS).status_code == 204
            except requests.ConnectionError:
                return False

        wait_until(answers, "the server answers", START_SECONDS)
        return self

    def terminate(self, sig: int = signal.SIGTERM) -> int:
        """End it in order; returns its exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(sig)
        return self.process.wait(START_SECONDS)

    def kill(self) -> None:
        """`kill -9` of the whole server, arbiter and worker."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(START_SECONDS)

    def call(self, method: str, path: str, session_id: str | None = None, **arguments: Any) -> requests.Response:
        """One request; `token` signs it, "" leaves it unsigned."""
        token = arguments.pop("token", self.token)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= {**arguments.pop("headers", {}), **({"X-Session-ID": session_id} if session_id else {})}
        return requests.request(method, f"{self.url}{path}", headers=headers, **{"timeout": CALL_SECONDS, **arguments})

    def open_session(self) -> str:
        """Enter the queue; returns the session id."""
        response = self.call("POST", "/session")
        assert response.status_code == 201, response.text
        return str(response.json()["session_id"])

    def end_session(self, session_id: str) -> None:
        """Leave the queue."""
        self.call("DELETE", f"/session/{session_id}")

    def status(self, session_id: str) -> tuple[str, int]:
        """State and position of a session."""
        answer = self.call("GET", f"/session/{session_id}").json()
        return answer["status"], answer["position"]

    def wait_active(self, session_id: str) -> None:
        """Wait for the session's turn."""
        wait_until(lambda: self.status(session_id)[0] == "active", f"session {session_id} is active")

    def wait_quiet(self) -> None:
        """Wait until no lab is on its way down, so that the next session is active at once."""
        wait_until(lambda: not self.call("GET", "/debug/health").json()["labs"], "no lab is left")

    def acquire(
        self, session_id: str, topology: str | Path, *, name: str = "demo.yml", reuse: bool = True, **extra: str
    ) -> requests.Response:
        """POST /lab with a topology (text, or a file) and extra files (`name_in_folder=content`)."""
        if isinstance(topology, Path):
            name, topology = topology.name, topology.read_text()
        files = [("topology", (name, topology)), *(("extra_files", (path, text)) for path, text in extra.items())]
        return self.call("POST", "/lab", session_id, files=files, data={"reuse": str(reuse).lower()})


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """A server that is ended, with every session and lab it has, whatever the test did."""
    try:
        yield server.start()
    finally:
        assert server.process is not None
        if server.process.poll() is None:
            while (head := server.call("GET", "/active-session")).status_code == 200:
                server.end_session(head.json()["session_id"])
            wait_until(lambda: not list_labs(server.state_dir), "all labs are down")
            server.terminate()


def list_labs(state_dir: Path) -> list[str]:
    """The labs that have a working directory."""
    return [folder.parent.name for folder in state_dir.glob("labs/*/lab")]


def ssh(address: str, command: str, password: str = "admin") -> str:
    """What a command on a device prints, run over ssh as root with its password."""
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    environment = {**os.environ, "SSH_ASKPASS": str(ASKPASS), "SSH_ASKPASS_REQUIRE": "force", "ASKPASS_SAYS": password}
    return subprocess.run(
        ["ssh", *options, "-o", "ConnectTimeout=10", f"root@{address}", command],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=CALL_SECONDS,
        check=True,
    ).stdout


def command_line(pid: int) -> str:
    """What a process was started as, for people; empty when it has ended."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return f"{pid}: {b' '.join(words).decode(errors='replace')}"


def processes_named(part: str) -> list[int]:
    """The pids of all processes that have this in their command line."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and part.encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue  # ended meanwhile
    return found
