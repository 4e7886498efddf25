"""`remote-lab run` and `release` as people and CI jobs start them, against a real server with a stand-in for netlab."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from harness import CALL_SECONDS, STANDIN, Server, running, wait_until

QUICK = "nodes: [ r1, r2 ]\n"
HANGING = "standin: { up_hangs: true }\nnodes: [ r1 ]\n"
FAILING = "standin: { up_fails: true }\nnodes: [ r1 ]\n"
CI_VARIABLES = ("CI", "GITHUB_", "GITLAB_", "JENKINS_", "BUILD_")


class Started:
    """A process of `remote-lab` that has not ended yet; its output goes to files."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self._out, self._err = folder / "out", folder / "err"
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def out(self) -> str:
        """Its standard output so far."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """Its standard error so far."""
        return self._err.read_text()

    def send(self, signum: int) -> None:
        """Send a signal to this process alone."""
        self.process.send_signal(signum)

    def wait_for(self, text: str) -> None:
        """Wait until it has printed something, on whatever."""

        def printed() -> bool:
            assert self.process.poll() is None or text in self.out + self.err, self.out + self.err
            return text in self.out + self.err

        wait_until(printed, f"it prints {text!r}")

    def status(self) -> int:
        """Wait for its end; return its exit status."""
        status = self.process.wait(CALL_SECONDS)
        assert "Traceback" not in self.err, self.err
        return status


class User:
    """Somebody with a folder of their own who types `remote-lab`."""

    def __init__(self, url: str | None, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("REMOTE_LAB_", *CI_VARIABLES)) or name == "REMOTE_LAB_IMAGE_DIR"
        } | {"TMPDIR": str(folder / "tmp"), "HOME": str(folder), "REMOTE_LAB_JOIN": "0"}
        if url is not None:
            self.environment["REMOTE_LAB_URL"] = url
        (folder / "tmp").mkdir(exist_ok=True)
        self.started: list[Started] = []

    def write(self, text: str, name: str = "demo.yml") -> str:
        """Write a file; return its name."""
        (self.folder / name).write_text(text)
        return name

    def start(self, *words: object, **environment: str) -> Started:
        """Type a command and wait for nothing."""
        command = [sys.executable, "-m", "remote_lab", *map(str, words)]
        self.started.append(Started(command, self.folder, self.environment | environment))
        return self.started[-1]

    def type(self, *words: object, status: int = 0, **environment: str) -> Started:
        """Type a command that ends with this exit status."""
        started = self.start(*words, **environment)
        assert (started.status(), started.err) == (status, started.err)
        return started

    def leftovers(self) -> list[str]:
        """The temporary files that are still there."""
        return sorted(path.name for path in (self.folder / "tmp").iterdir())


@pytest.fixture(scope="module")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(Server(tmp_path_factory.mktemp("server") / "state", PROVIDER="clab", NETLAB=STANDIN)) as server:
        yield server


@pytest.fixture
def server(_shared: Server) -> Iterator[Server]:
    """A running server with one slot; nothing is in its queue before and after the test."""
    yield _shared
    empty(_shared)


def empty(server: Server) -> None:
    """End all sessions and wait until their labs are down."""
    while (head := server.call("GET", "/active-session")).status_code == 200:
        server.end_session(head.json()["session_id"])
    server.wait_quiet()


def nothing_is_left(server: Server, user: User) -> bool:
    """No session, no lab, no temporary file."""
    health = server.call("GET", "/debug/health").json()
    return not health["sessions"] and not health["labs"] and user.leftovers() == []


def how_many_wait(server: Server, holder: str) -> int:
    """The length of the queue behind a session that is active."""
    return int(server.call("GET", f"/session/{holder}").json()["waiting"])


def make_user(url: str | None, folder: Path) -> Iterator[User]:
    """A user whose processes are gone after the test."""
    user = User(url, folder)
    yield user
    for started in user.started:
        if started.process.poll() is None:
            started.process.kill()
            started.process.wait()


@pytest.fixture
def user(server: Server, tmp_path: Path) -> Iterator[User]:
    """A user of the server."""
    yield from make_user(server.url, tmp_path)


class HoldingProxy:
    """Passes requests on to a server, and holds back the answers of some until it is told to let them go."""

    def __init__(self, upstream: str, method: str, path: str) -> None:
        self.answered = threading.Event()
        """The server has done what was asked."""
        self.let_go = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                answer = requests.request(
                    self.command, upstream + self.path, data=body, headers=headers, timeout=CALL_SECONDS
                )
                if self.command == method and self.path.startswith(path):
                    proxy.answered.set()
                    proxy.let_go.wait(CALL_SECONDS)
                self.send_response(answer.status_code)
                for name in ("Content-Type", "Retry-After"):
                    if name in answer.headers:
                        self.send_header(name, answer.headers[name])
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            do_GET = do_POST = do_DELETE = pass_on  # noqa: N815  http.server looks for these names

            def log_message(self, *_arguments: object) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    @contextmanager
    def serving(self) -> Iterator[HoldingProxy]:
        """Serve until the block ends."""
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self.let_go.set()
            self._http.shutdown()
            self._http.server_close()


ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
