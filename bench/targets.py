"""What is measured: our server from a tree, a bare Flask view under the same gunicorn, neops-remote-lab as shipped."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from harness import Server, free_port, running, wait_until

from bench import ROOT
from bench.options import Options
from bench.report import BEFORE, OURS, PEER

PEER_PACKAGE = "neops-remote-lab==1.4.0"
PEER_VENV = ROOT / ".venv" / "peer"
PEER_PYTHON = "3.12"
END_SECONDS = 20.0


@dataclass(frozen=True)
class Target:
    """Something that answers HTTP."""

    name: str
    url: str
    pid: int
    """Of the process that was started."""
    actor: tuple[str, ...] = ()
    """How a program with its client is run."""
    package: str = ""
    """Where that client is imported from."""
    environment: Mapping[str, str] | None = None
    """Of such a program."""
    state_dir: Path = Path()
    calls: Path = Path(os.devnull)
    """Where the stand-in of our server writes what it is asked."""
    token: str = ""

    def call(self, method: str, path: str, session_id: str | None = None, **arguments: Any) -> requests.Response:
        """One request on a connection of its own."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        headers |= {"X-Session-ID": session_id} if session_id else {}
        return requests.request(method, self.url + path, headers=headers, **{"timeout": 600, **arguments})

    def open_session(self) -> str:
        answer = self.call("POST", "/session")
        answer.raise_for_status()
        return str(answer.json()["session_id"])

    def wait_active(self, session_id: str) -> None:
        wait_until(lambda: self.call("GET", f"/session/{session_id}").json()["status"] == "active", "it is active")

    def end_session(self, session_id: str) -> None:
        self.call("DELETE", f"/session/{session_id}")

    def start_actor(self, script: str, *arguments: object) -> subprocess.Popen[str]:
        """Start one of `actors/` with this target's client; it speaks JSON on its standard output."""
        command = [*self.actor, str(ROOT / "bench" / "actors" / script), self.package, self.url, *map(str, arguments)]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self.environment, cwd="/"
        )

    @property
    def worker(self) -> int:
        """The process that serves, of a server that has an arbiter."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return int(children[0]) if children else self.pid


class _TreeServer(Server):
    """Our server as the code in some tree is."""

    tree = ROOT

    @property
    def environment(self) -> dict[str, str]:
        own = {"PYTHONPATH": str(self.tree), "PYTHONDONTWRITEBYTECODE": "1", "STANDIN_CALLS": str(self.calls)}
        return {**super().environment, **own}

    @property
    def calls(self) -> Path:
        return self.state_dir.with_suffix(".calls")

    def spawn(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "remote_lab", "serve", "--port", str(self.port), *self.options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self.environment,
                cwd=self.tree,
                start_new_session=True,
            )
        return self.process


def standin(folder: Path) -> Path:
    """Make the executable `netlab` in a folder; the same for everybody who is measured."""
    path = folder / "bin" / "netlab"
    path.parent.mkdir(exist_ok=True)
    interpreter = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    path.write_text(f"#!{interpreter} -IS\n{(ROOT / 'bench' / 'standin').read_text()}")
    path.chmod(0o755)
    return path


@contextmanager
def ours(
    folder: Path, tree: Path = ROOT, *, real_labs: bool = False, token: bool = False, **settings: Any
) -> Iterator[Target]:
    """Our server with the stand-in for netlab, or with real labs; ended with all that it has."""
    name = OURS if tree == ROOT else BEFORE
    state_dir = folder / f"state-{name}-{len(list(folder.iterdir()))}"
    fake = {} if real_labs else {"PROVIDER": "clab", "NETLAB": standin(folder), "TRUST_UPLOADS": 1}
    server = _TreeServer(state_dir, **fake, **({"AUTH": "token"} if token else {}), **settings)
    server.tree = tree
    server.with_options("--log-level", "INFO")
    if token:
        server.token = _make_token(server)
    with running(server) if real_labs else _alone(server):
        assert server.process is not None
        yield Target(
            name,
            server.url,
            server.process.pid,
            (sys.executable,),
            "remote_lab.client",
            {key: value for key, value in server.environment.items() if not key.startswith("REMOTE_LAB_")},
            state_dir,
            server.calls,
            server.token,
        )


def has_setting(tree: Path, name: str) -> bool:
    """Whether the server of that tree knows `REMOTE_LAB_<name>`."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "remote_lab", "config"]
    done = subprocess.run(command, env=environment, cwd=tree, capture_output=True, text=True, check=True)
    return f"REMOTE_LAB_{name}" in done.stdout


@contextmanager
def _alone(server: Server) -> Iterator[None]:
    """As `running`, but nothing is taken down one by one: there are thousands of sessions, and no real lab."""
    try:
        server.start()
        yield
    finally:
        if server.process is not None:
            server.terminate()


def _make_token(server: _TreeServer) -> str:
    command = [sys.executable, "-m", "remote_lab", "token", "create", "bench"]
    done = subprocess.run(command, env=server.environment, cwd=server.tree, capture_output=True, text=True, check=True)
    return done.stdout.split()[-1]


def roots(options: Options) -> list[Path]:
    """This tree, and the one it is compared with, when there is one."""
    return [ROOT, *([options.base] if options.base else [])]


@contextmanager
def trees(folder: Path, options: Options, **settings: Any) -> Iterator[list[Target]]:
    """Our server from each of `roots`."""
    with ExitStack() as stack:
        yield [stack.enter_context(ours(folder, tree, **settings)) for tree in roots(options)]


@contextmanager
def bare_flask(threads: int = 32) -> Iterator[Target]:
    """`floor.py` under gunicorn with as many threads as our server has by default."""
    port = free_port()
    options = ["-k", "gthread", "-w", "1", "--threads", str(threads), "-b", f"127.0.0.1:{port}"]
    command = [sys.executable, "-m", "gunicorn", *options, "--log-level", "warning", "bench.floor:app"]
    with _process(command, Path(os.devnull), dict(os.environ), ROOT, f"http://127.0.0.1:{port}/session/any") as process:
        yield Target("floor", f"http://127.0.0.1:{port}", process.pid)


@contextmanager
def peer(folder: Path, python: str, calls: Path | None = None) -> Iterator[Target]:
    """neops-remote-lab with the stand-in, its defaults and its log; locks and labs in a folder of its own."""
    own = folder / f"peer-{len(list(folder.iterdir()))}"
    own.mkdir()
    port = free_port()
    search = f"{standin(folder).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": search, "TMPDIR": str(own), "PYTHONPATH": ""}
    environment |= {"STANDIN_CALLS": str(calls)} if calls else {}
    command = [python, "-m", "neops_remote_lab", "--host", "127.0.0.1", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with _process(command, own / "log", environment, own, f"{url}/healthz") as process:
        yield Target(PEER, url, process.pid, (python,), "neops_remote_lab.client", environment, own)


@contextmanager
def _process(
    command: list[str], log: Path, environment: dict[str, str], directory: Path, url: str
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL, env=environment, cwd=directory
        )

    def answers() -> bool:
        assert process.poll() is None, f"{command[2]} ended with {process.returncode}, see {log}"
        try:
            return requests.get(url, timeout=5).status_code < 300
        except requests.ConnectionError:
            return False

    try:
        wait_until(answers, f"{command[2]} answers")
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def find_peer() -> tuple[str | None, str]:
    """The interpreter of an environment that has the peer, made when it is missing; otherwise None and why."""
    python = PEER_VENV / "bin" / "python"
    if _has_peer(python):
        return str(python), ""
    base = _python_for_peer()
    if base is None:
        return None, f"neops-remote-lab was not measured: there is no Python {PEER_PYTHON}"
    print(f"==> Installing {PEER_PACKAGE} into {PEER_VENV.relative_to(ROOT)}", flush=True)
    try:
        subprocess.run([base, "-m", "venv", "--clear", str(PEER_VENV)], check=True, capture_output=True)
        command = [str(python), "-m", "pip", "install", "--quiet", PEER_PACKAGE, "pytest"]
        subprocess.run(command, check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        shutil.rmtree(PEER_VENV, ignore_errors=True)
        last = (error.stderr or b"").decode(errors="replace").strip().splitlines()[-1:]
        return None, f"neops-remote-lab was not measured: it cannot be installed ({' '.join(last)})"
    return str(python), ""


def _has_peer(python: Path) -> bool:
    command = [str(python), "-c", "import neops_remote_lab"]
    return python.exists() and not subprocess.run(command, capture_output=True, check=False).returncode


def _python_for_peer() -> str | None:
    """What is called so on PATH may be a shim that says that it is not there."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for candidate in (f"python{PEER_PYTHON}", *map(str, pyenv.glob(f"{PEER_PYTHON}*/bin/python"))):
        command = [candidate, "-c", "import ensurepip, sys; print(sys.version)"]
        try:
            said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        except OSError:
            continue
        if said.startswith(PEER_PYTHON):
            return candidate
    return None
