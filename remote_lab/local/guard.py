"""The guard of one run: it outlives the process that needs a server, and leaves nothing of it.

`python -m remote_lab.local.guard TASK`, TASK being JSON, returns when the guard has its lock and goes on without a
terminal: Ctrl-C, the end of a terminal and the end of whoever started it do not reach it. It writes `server.json` or
`failed.json` into the folder of the run and lives until the watched process has ended, it is asked to end, or gets
SIGTERM. Then it ends the noted session, takes the private server down with all its labs and removes the folder.

What nothing helps against is `kill -9` of the guard itself: its server gets SIGTERM from the kernel, the labs stay, and
the next run finds them on the list (`runs.Runs`) and has a guard clean up, which is a task without `watch_pid`.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from remote_lab.local import http, kernel
from remote_lab.local.events import Events
from remote_lab.local.private import Interrupted, PrivateServer, StartFailed
from remote_lab.local.runs import Run, Runs, noted_session
from remote_lab.local.task import BUSY, WATCHED_ENDED, Task

LOOK_SECONDS = 60.0
SESSION_SECONDS = 15.0
"""How long a joined server that does not answer is asked to end the session."""
SESSION_PAUSE_SECONDS = 1.0
RESTARTS = 3


class Guard:
    """See the module; made by the process that stays."""

    def __init__(self, task: Task, run: Run, watched: int | None, environment: Mapping[str, str]) -> None:
        self._task = task
        self._run = run
        self._environment = environment
        self._events = Events(watched, run.requests if watched is not None else None)
        self._server = PrivateServer(run, environment, self._events)
        self._failure: StartFailed | None = None

    def guard(self) -> str | None:
        """Guard a run to its end; returns what could not be taken down."""
        try:
            if self._task.joined_url is not None:
                self._run.note_found(self._task.joined_url, True, self._task.joined_provider)
                self._wait()
            else:
                self._serve()
        except StartFailed as failure:
            self._failure = failure
        except Interrupted:
            pass
        except Exception as error:  # noqa: BLE001 - whatever it is, what was started has to end
            traceback.print_exc()
            self._failure = StartFailed(f"The guard broke: {error!r}", labs_can_run=True)
        _print(f"the run is taken down: {self._events.reason or self._failure or 'it could not go on'}")
        problem = self._take_down()
        if self._failure is not None and self._events.reason is None:
            self._run.note_failure(str(self._failure), self._failure.labs_can_run)
        return problem

    def _serve(self) -> None:
        self._server.start()
        self._run.note_found(self._server.url, False, self._server.provider())
        restarts = 0
        while not self._events.wait(LOOK_SECONDS):
            if not self._server.is_running:
                restarts += 1
                _print(f"the server ended, start {restarts} of {RESTARTS} in its place")
                if restarts > RESTARTS:
                    raise StartFailed(f"The server ended {RESTARTS} times.", labs_can_run=True)
                self._server.start_again()

    def _wait(self) -> None:
        while not self._events.wait(LOOK_SECONDS):
            pass

    def clean_up(self) -> str | None:
        """Take down what a killed guard left; returns what could not be."""
        if self._run.failure() is not None:
            return None  # noted when everything was down
        return self._take_down()

    def _take_down(self) -> str | None:
        found = self._run.found() or {}
        noted = noted_session(self._run.folder)
        if noted is not None and (found.get("joined") or noted[0] != found.get("url")):
            self._end_session(*noted)
        if self._task.joined_url is None and not found.get("joined"):
            return self._server.take_down(self._task.state_is_lost)
        return None

    def _end_session(self, url: str, session_id: str) -> None:
        """A server that does not answer for long ends it by itself, as it hears nothing of it."""
        deadline = time.monotonic() + SESSION_SECONDS
        while (why := http.end_session(url, session_id, self._environment.get("REMOTE_LAB_TOKEN"))) is not None:
            if time.monotonic() > deadline:
                _print(f"the session {session_id[:8]} is left to its server: {why}")
                return
            time.sleep(SESSION_PAUSE_SECONDS)


def main() -> None:
    """Take the lock and go on in a process of its own; see the module."""
    task = Task.from_argument(sys.argv[1])
    run = Run(Path(task.run_dir))
    lock = run.guard_lock()
    if not lock.take():
        sys.exit(BUSY)
    watched = None
    if task.watch_pid is not None:
        try:
            watched = os.pidfd_open(task.watch_pid)
        except ProcessLookupError:
            sys.exit(WATCHED_ENDED)
        if kernel.start_time(task.watch_pid) != task.watch_started:
            sys.exit(WATCHED_ENDED)
        os.mkfifo(run.requests, 0o600)
    if os.fork():
        os._exit(0)  # the lock goes on with the child
    _stay(task, run, watched)


def _stay(task: Task, run: Run, watched: int | None) -> None:
    environment = dict(os.environ)
    runs = Runs(environment)
    os.setsid()
    kernel.adopt_orphans()
    with suppress(OSError):  # whoever obtains was told when it entered the run
        runs.add(run, task.joined_url is not None)
    guard = Guard(task, run, watched, environment)
    problem = guard.guard() if watched is not None else guard.clean_up()
    if problem is not None:
        _print(f"NOT taken down: {problem}")
        sys.exit(1)
    if watched is not None and run.failure() is not None:
        return  # whoever obtains reads it, and removes the folder
    runs.remove(run)
    run.remove()


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - into the guard's log


if __name__ == "__main__":
    main()
