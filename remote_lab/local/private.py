"""The server of one run: `remote-lab serve` on a port and state folder of its own, from its start to the last of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from remote_lab.local import doctor, http, kernel
from remote_lab.local.events import Events
from remote_lab.local.runs import Run, read_json

START_SECONDS = 900.0
"""The image of labs may have to be built."""
DOCTOR_SECONDS = 60.0
SESSIONS_SECONDS = 900.0
"""For all sessions to end and their labs to go down; the server has deadlines of its own for each."""
STOP_SECONDS = 60.0
KILL_SECONDS = 10.0
PORT_TRIES = 5
DATABASE = "remote-lab.sqlite3"
"""Without it in the state folder there never was a lab."""
_TAIL_LINES = 15
_REFUSAL = "Error: "


class Interrupted(Exception):
    """Everything has to end, so the start was given up."""


class StartFailed(Exception):
    """There is no server; `labs_can_run` tells a machine that cannot have one from a server that broke."""

    def __init__(self, sentence: str, labs_can_run: bool) -> None:
        super().__init__(sentence)
        self.labs_can_run = labs_can_run


class PrivateServer:
    """The server of `run`, with the settings of `environment` otherwise."""

    def __init__(self, run: Run, environment: Mapping[str, str], events: Events) -> None:
        private = {"REMOTE_LAB_STATE_DIR": str(run.state_dir), "REMOTE_LAB_DATABASE_URL": ""}
        # What the user boots on the user's own machine is the user's own.
        private["REMOTE_LAB_TRUST_UPLOADS"] = "1"
        # Whoever set this meant the server of REMOTE_LAB_URL; this one is on loopback, for the length of a run.
        private["REMOTE_LAB_AUTH"] = "open"
        self._run = run
        self._environment = {**environment, **private}
        self._events = events
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{kernel.LOOPBACK}:{self._port}"

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    def provider(self) -> str:
        """What labs run with; OSError when the server does not answer."""
        _, health = http.call("GET", f"{self.url}/debug/health")
        return str(health.get("provider") or "unknown") if isinstance(health, dict) else "unknown"

    def start(self) -> None:
        """Start it and wait until it is well, while the doctor has a look: both take the time of one.

        Raises:
            StartFailed: it ended, this machine cannot run labs, or it took too long.
            Interrupted: everything has to end.
        """
        answer = self._run.folder / "doctor.json"
        with answer.open("wb") as output, self._run.guard_log.open("ab") as errors:
            # A place that is not there yet: the doctor must not look at what the server is making in this moment.
            place = {"REMOTE_LAB_STATE_DIR": str(self._run.folder / "nowhere")}
            command = _command("doctor", "--json", "--port", str(kernel.free_port()))
            looking = self._events.spawn(command, {**self._environment, **place}, output.fileno(), errors.fileno())
        try:
            self._start_somewhere(looking, answer)
        except StartFailed as failure:
            self._events.wait_for(looking, DOCTOR_SECONDS)
            self._check_machine(looking, answer, failure)
            raise
        finally:
            looking.kill()
            answer.unlink(missing_ok=True)

    def start_again(self, heeds_end: bool = True) -> None:
        """Start it with the state it has, on the port it had if it had one.

        What may be raised: see `start`; never Interrupted without `heeds_end`.
        """
        self._wait_for_predecessor()
        self._start_somewhere(None, None, heeds_end)

    def _start_somewhere(
        self, looking: subprocess.Popen[bytes] | None, answer: Path | None, heeds_end: bool = True
    ) -> None:
        deadline = time.monotonic() + START_SECONDS
        for _ in range(PORT_TRIES):
            self._port = self._port or kernel.free_port()
            began = self._run.server_log.stat().st_size if self._run.server_log.exists() else 0
            self._spawn()
            while self.is_running:
                if time.monotonic() > deadline:
                    raise StartFailed(f"The server is not ready after {START_SECONDS:.0f} s.", labs_can_run=True)
                if heeds_end and self._events.wait(kernel.POLL_SECONDS):
                    raise Interrupted
                if not heeds_end:
                    self._events.pause()
                if looking is not None and answer is not None and looking.poll() is not None:
                    self._check_machine(looking, answer)
                    looking = None
                if looking is None and self._is_ready():
                    return
            if kernel.is_free(self._port):
                raise self._failure(began)
            self._port = 0  # somebody was faster
        raise StartFailed(f"No port of {kernel.LOOPBACK} could be had in {PORT_TRIES} tries.", labs_can_run=True)

    def _spawn(self) -> None:
        command = _command("serve", "--host", kernel.LOOPBACK, "--port", str(self._port))
        with self._run.server_log.open("ab") as log:
            self._process = self._events.spawn(command, self._environment, log.fileno(), log.fileno())

    def _is_ready(self) -> bool:
        if self._process is None or not kernel.listens(self._process.pid, self._port):
            return False
        try:
            return http.call("GET", f"{self.url}/healthz")[0] == 204
        except OSError:
            return False

    def _check_machine(
        self, looking: subprocess.Popen[bytes], answer: Path, because: StartFailed | None = None
    ) -> None:
        """StartFailed with the doctor's sentence when labs cannot run here."""
        if looking.poll() is None:
            return
        try:
            why = doctor.why_not(answer.read_text(), self._environment.get("REMOTE_LAB_PROVIDER", "").strip())
        except ValueError as error:
            message = f"remote-lab doctor broke with status {looking.returncode}:\n{_tail(self._run.guard_log, 0)}"
            raise because or StartFailed(message, labs_can_run=True) from error
        if why is not None:
            raise StartFailed(why, labs_can_run=False) from because

    def _failure(self, began: int) -> StartFailed:
        tail = _tail(self._run.server_log, began)
        refusal = next((line for line in tail.splitlines() if line.startswith(_REFUSAL)), None)
        if refusal is not None:
            return StartFailed(tail[tail.index(refusal) + len(_REFUSAL) :], labs_can_run=False)
        status = None if self._process is None else self._process.returncode
        return StartFailed(f"The server ended with status {status}:\n{tail}", labs_can_run=True)

    def take_down(self, state_is_lost: bool) -> str | None:
        """End all sessions and labs, then the server, also one that was killed; returns what could not be done.

        A server on a state folder that was removed finds its labs by what they are.
        """
        problem = None
        if state_is_lost or (self._run.state_dir / DATABASE).exists():
            problem = self._end_sessions()
        self._terminate()
        if not self._events.end_children(KILL_SECONDS):
            return "processes of the server cannot be killed"
        return problem

    def _end_sessions(self) -> str | None:
        """Also labs on their way down count, which no session has any more: the server finishes them."""
        try:
            if not self.is_running:
                self.start_again(heeds_end=False)
            if self._is_quiet():
                return None
        except StartFailed as error:
            self._note(f"the server does not start again, its sessions are ended without it: {error}")
        with self._run.guard_log.open("ab") as log:
            files = (log.fileno(), log.fileno())
            ending = self._events.spawn(_command("session", "end", "--all"), self._environment, *files)
        status = self._events.wait_for(ending, SESSIONS_SECONDS)
        if status is None:
            ending.kill()
            return f"its sessions did not end within {SESSIONS_SECONDS:.0f} s"
        deadline = time.monotonic() + SESSIONS_SECONDS
        while status == 0 and self.is_running and not self._is_quiet():
            if time.monotonic() > deadline:
                return f"labs are not down after {SESSIONS_SECONDS:.0f} s"
            self._events.pause()
        return None if status == 0 else f"its sessions did not end in order (status {status})"

    def _is_quiet(self) -> bool:
        try:
            _, health = http.call("GET", f"{self.url}/debug/health")
        except OSError as error:
            self._note(f"the server does not answer: {error}")
            return False
        return isinstance(health, dict) and health.get("sessions") == 0 and not health.get("labs")

    def _terminate(self) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        if self._events.wait_for(process, STOP_SECONDS) is None:
            self._note(f"the server is killed, it did not end within {STOP_SECONDS:.0f} s")
            os.killpg(process.pid, signal.SIGKILL)
            self._events.wait_for(process, KILL_SECONDS)

    def _wait_for_predecessor(self) -> None:
        """An earlier server on this state got SIGTERM when its guard was killed; one that does not end is killed."""
        lock = self._run.state_dir / "server.lock"
        deadline = time.monotonic() + STOP_SECONDS
        while kernel.is_locked(lock) and time.monotonic() < deadline:
            self._events.pause()
        holder = read_json(self._run.state_dir / "server.json") or {}
        if kernel.is_locked(lock) and isinstance(pid := holder.get("pid"), int):
            self._note(f"the earlier server, pid {pid}, is killed, it did not end within {STOP_SECONDS:.0f} s")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _note(self, line: str) -> None:
        with self._run.guard_log.open("a") as log:
            log.write(f"{line}\n")


def _command(*words: str) -> list[str]:
    # -P: a file in the working directory must not take the place of a module of the server.
    return [sys.executable, "-P", "-m", "remote_lab", *words]


def _tail(path: Path, began: int) -> str:
    """The last lines of what was written since the file had so many bytes."""
    with path.open("rb") as stream:
        stream.seek(began)
        return "\n".join(stream.read().decode(errors="replace").strip().splitlines()[-_TAIL_LINES:])
