"""`obtain`: a server for a run, joined or started. The work is done by the guard; here is who asks for it and waits."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remote_lab.local import kernel
from remote_lab.local.doctor import missing_server_part
from remote_lab.local.joining import find_running
from remote_lab.local.private import DOCTOR_SECONDS, SESSIONS_SECONDS, START_SECONDS, STOP_SECONDS
from remote_lab.local.runs import Run, Runs
from remote_lab.local.task import BUSY, Task

log = logging.getLogger("remote_lab.local")

LAUNCH_SECONDS = 30.0
OBTAIN_SECONDS = START_SECONDS + DOCTOR_SECONDS
END_SECONDS = SESSIONS_SECONDS + 2 * STOP_SECONDS
CLEAN_TRIES = 3
LEFTOVER_SECONDS = 120.0
"""What a killed run left may take so long of the next one."""
QUIET_SECONDS = 3.0
"""A start that takes longer is told of, line by line of the server's log."""


class NoLabsHere(Exception):
    """This machine cannot run labs; the message says why and what to do, as `remote-lab doctor` does."""


class LocalServerFailed(Exception):
    """This machine could run labs, but there is no server all the same; the message has the end of its log."""


@dataclass(frozen=True)
class LocalServer:
    """The server of a run."""

    url: str
    joined: bool
    """It runs on this host by itself, and goes on after the run."""
    provider: str
    """What its labs run with, such as netns."""
    _run: Run = field(repr=False, compare=False)
    _user: Path = field(repr=False, compare=False)
    _say: Callable[[str], None] = field(repr=False, compare=False)
    _environment: Mapping[str, str] = field(repr=False, compare=False)

    def stop(self) -> None:
        """End what was started, and wait until it is gone; not while another process uses it that obtained it too."""
        with self._run.obtain_lock() as lock:
            if not _take(self._run, lock):
                return
            self._user.unlink(missing_ok=True)
            if not self._run.has_users():
                _end(self._run, self._environment, self._say)


def obtain(run_dir: Path, watch_pid: int, environment: Mapping[str, str], say: Callable[[str], None]) -> LocalServer:
    """Return the server of a run: the one that is there, one that runs on this host, or a new one.

    Args:
        run_dir: folder of the run, made if it is missing; it is removed with everything in it at the end.
        watch_pid: the process whose end, however it comes, is the end of the run.
        environment: settings of the server, and where servers and earlier runs are looked for (HOME).
        say: is told what goes on, when that takes a while or somebody should know.
    Raises:
        NoLabsHere: this machine cannot run labs.
        LocalServerFailed: it can, but the server does not start; ValueError without a process `watch_pid`.
    """
    started = kernel.start_time(watch_pid)
    if started is None:
        raise ValueError(f"There is no process {watch_pid} that a server could be run for.")
    run = Run(run_dir)
    with run.obtain_lock() as lock:
        try:
            _take_for_start(run, lock, environment, say)
            if not run.is_guarded():
                _clean_up_leftovers(environment, say)
                _launch(run, _task(run, watch_pid, started, environment, say), environment, say)
        except BaseException:  # Ctrl-C as well
            _give_up(run, lock, environment)
            raise
        found = _wait_for_answer(run, environment, say)
        user = run.add_user()
    return LocalServer(found["url"], found["joined"], found["provider"], run, user, say, environment)


def _give_up(run: Run, lock: kernel.Lock, environment: Mapping[str, str]) -> None:
    """Leave nothing of a start that brought no guard, unless the folder is another's to start in or to clean up."""
    with suppress(OSError):
        if run.is_mine() and lock.take() and not run.is_guarded():
            Runs(environment).remove(run)
            run.forget()


def _take_for_start(run: Run, lock: kernel.Lock, environment: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Take the lock of a run in whose folder no killed guard left anything: the lock goes with that."""
    for _ in range(CLEAN_TRIES):
        if not _take(run, lock, makes=True):
            raise LocalServerFailed(f"Another process has been starting the server of {run.folder} for too long.")
        if not run.is_unguarded_leftover():
            return
        _clean_up(run, environment, LEFTOVER_SECONDS, say)
        lock.release()
    raise LocalServerFailed(f"What an earlier guard left in {run.folder} has to be taken down first.")


def stop(run_dir: Path, environment: Mapping[str, str], say: Callable[[str], None] = log.error) -> None:
    """End the server of a run for all who use it, and wait until it is gone; from any process of the user.

    `environment` is what it was obtained with; `say` is told what could not be ended. Without a server nothing happens.
    """
    run = Run(run_dir)
    with run.obtain_lock() as lock:
        if run.folder.exists() and _take(run, lock):
            _end(run, environment, say)


def _take(run: Run, lock: kernel.Lock, makes: bool = False) -> bool:
    """Take the lock of a run whose folder may vanish meanwhile; False when it has, or others do not let go."""
    deadline = time.monotonic() + OBTAIN_SECONDS
    while time.monotonic() < deadline:
        try:
            if makes:
                run.make()
            return lock.take(deadline - time.monotonic())
        except FileNotFoundError:
            if not makes:
                return False
    return False


def _task(run: Run, watch_pid: int, started: int, environment: Mapping[str, str], say: Callable[[str], None]) -> Task:
    running = find_running(environment, say)
    if running is None:
        if (missing := missing_server_part()) is not None:
            raise NoLabsHere(missing)
        return Task(str(run.folder), watch_pid, started)
    return Task(str(run.folder), watch_pid, started, running.url, running.provider)


def _launch(run: Run, task: Task, environment: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Start a guard; it has its lock when this returns."""
    if task.watch_pid is not None:
        try:
            Runs(environment).add(run, task.joined_url is not None)
        except OSError as error:
            say(f"If this run is killed together with its guard, no later run will clean up: {error}")
    command = [sys.executable, "-P", "-m", "remote_lab.local.guard", task.as_argument()]
    with run.guard_log.open("ab") as output:
        try:
            status = subprocess.run(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for this process
                timeout=LAUNCH_SECONDS,
                check=False,
            ).returncode
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LocalServerFailed(f"The guard of {run.folder} cannot be started: {error}") from error
    if status == BUSY and task.watch_pid is None:
        return  # somebody else cleans up
    if status:
        raise LocalServerFailed(f"The guard of {run.folder} ended with {status}:\n{run.guard_log.read_text()}")


def _wait_for_answer(run: Run, environment: Mapping[str, str], say: Callable[[str], None]) -> dict[str, Any]:
    began = time.monotonic()
    told = 0
    while time.monotonic() - began < OBTAIN_SECONDS:
        is_guarded = run.is_guarded()  # looked at first: what a guard writes is there when it has ended
        if (failure := run.failure()) is not None:
            kernel.wait_until(lambda: not run.is_guarded(), END_SECONDS)
            Runs(environment).remove(run)
            run.forget()
            raise (LocalServerFailed if failure["labs_can_run"] else NoLabsHere)(failure["sentence"])
        if (found := run.found()) is not None:
            return found
        if not is_guarded:
            raise LocalServerFailed(f"The guard of the run ended before there was a server:\n{_text(run.guard_log)}")
        if time.monotonic() - began > QUIET_SECONDS:
            told = _tell(run, told, say)
        time.sleep(kernel.POLL_SECONDS)
    raise LocalServerFailed(f"There is no server after {OBTAIN_SECONDS:.0f} s:\n{_text(run.server_log)}")


def _tell(run: Run, told: int, say: Callable[[str], None]) -> int:
    """Say the whole lines of the server's log after the first `told`, without time and name."""
    lines = _text(run.server_log).split("\n")[:-1]
    for line in lines[told:]:
        say(line.split(" | ")[-1])
    return len(lines)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _end(run: Run, environment: Mapping[str, str], say: Callable[[str], None]) -> None:
    if run.is_guarded():
        run.ask_to_end()
        kernel.wait_until(lambda: not run.is_guarded(), END_SECONDS)
    if run.is_unguarded_leftover():
        _clean_up(run, environment, END_SECONDS, say)


def _clean_up_leftovers(environment: Mapping[str, str], say: Callable[[str], None]) -> None:
    for left in Runs(environment).leftovers():
        say(f"An earlier run was killed; what it left is taken down ({left.folder}).")
        _clean_up(left, environment, LEFTOVER_SECONDS, say)


def _clean_up(run: Run, environment: Mapping[str, str], seconds: float, say: Callable[[str], None]) -> None:
    """Have a guard take down what one left that was killed."""
    state_is_lost = not run.folder.exists()
    run.make()
    _launch(run, Task(str(run.folder), state_is_lost=state_is_lost), environment, say)
    if not kernel.wait_until(lambda: not run.is_guarded(), seconds):
        say(f"What runs in {run.folder} is still being taken down after {seconds:.0f} s.")
    elif run.folder.exists():
        say(f"Not everything of {run.folder} could be taken down:\n{_text(run.guard_log)}")
