"""The background loop: end who is silent, take down what is idle or dead, admit the next, sweep what nobody owns.

`tick()` is one round of named steps, and `recover()` the round before the first request; the thread around them is all
there is beside. A step that fails is logged and tried again in the next round, the others go on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from remote_lab.core import labs, sessions
from remote_lab.core.manager import LabManager
from remote_lab.errors import ServerUnhealthy, SessionNotFound
from remote_lab.states import LabState, SessionState

log = logging.getLogger(__name__)

KEPT_SECONDS = 24 * 3600.0
"""How long ended sessions and the logs of failed boots are kept."""

STALLED_SECONDS = 60.0
STALLED_INTERVALS = 10
"""A loop that has finished no round for this long, whichever is longer, is stalled."""


class Reaper:
    """The loop over one manager; `start()` and `stop()` are for the server, `tick()` for tests as well."""

    def __init__(self, manager: LabManager) -> None:
        self._manager = manager
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._finished = time.monotonic()

    def check(self) -> None:
        """Raise ServerUnhealthy when the loop does not run, or has not finished a round for far too long."""
        if self._thread is None or not self._thread.is_alive():
            raise ServerUnhealthy("The reaper does not run: nobody is promoted or cleaned up. Restart the server.")
        age_seconds = self.age_seconds()
        if age_seconds > max(STALLED_SECONDS, STALLED_INTERVALS * self._manager.config.reaper_seconds):
            raise ServerUnhealthy(
                f"The reaper has not finished a round for {age_seconds:.0f} s: nobody is promoted or cleaned up. "
                "The log says what it does; restart the server."
            )

    def age_seconds(self) -> float:
        """Seconds since the loop finished a round, or since its server was built when it never did."""
        return time.monotonic() - self._finished

    def start(self) -> None:
        """Begin the loop on a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="reaper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the loop and wait until its round is over."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def recover(self) -> None:
        """Take over what an earlier server left: adopt labs that really run, clean up the others, end orphans."""
        manager = self._manager
        with manager.database.read() as transaction:
            queue, found = sessions.live(transaction), labs.live(transaction)
        for lab in found:
            if lab.state != LabState.RUNNING:
                continue
            why = manager.runner.probe(manager.boots.place(lab))
            if why is None:
                log.info("Adopted lab %s in slot %d", lab.topology, lab.slot, extra={"session_id": lab.session_id})
            else:
                manager.desk.take_down_dead(lab.id, why)
        if queue:
            log.info("Recovered %d sessions: %s", len(queue), ", ".join(f"{item.id} {item.state}" for item in queue))
        self.tick()

    def tick(self) -> float:
        """Do one round; returns the seconds until the next is due."""
        steps: list[Callable[[], None]] = [
            self._end_silent_sessions,
            self._end_overdue_sessions,
            self._clean_up_dead_labs,
            self._take_down_idle_labs,
            self._finish_what_has_no_job,
            self._manager.admit,
            self._end_orphans,
            self._sweep,
        ]
        for step in steps:
            try:
                step()
            except Exception:
                log.exception("Reaper: %s failed and is tried again", step.__name__.strip("_").replace("_", " "))
        self._finished = time.monotonic()
        return self._interval_seconds()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                seconds = self.tick()
            except Exception:
                log.exception("Reaper: the database does not answer")
                seconds = self._manager.config.reaper_seconds
            self._stop.wait(seconds)

    def _end_silent_sessions(self) -> None:
        manager = self._manager
        limits = {
            SessionState.WAITING: manager.config.waiting_seconds,
            SessionState.ACTIVE: manager.config.active_seconds,
        }
        began = manager.sessions_seen.now()
        with manager.database.read() as transaction:
            queue, found = sessions.live(transaction), labs.live(transaction)
        busy = {lab.session_id for lab in found if lab.state in (LabState.STARTING, LabState.STOPPING)}
        for session in queue:
            limit = limits[SessionState(session.state)]
            silence = manager.sessions_seen.silence_seconds(session.id)
            if session.id in busy or silence <= limit:
                continue
            try:
                manager.end_session(session.id, f"silent for {silence:.0f} s, {session.state} sessions may {limit:g} s")
            except SessionNotFound:
                log.debug("Session %s ended by itself", session.id)
        manager.sessions_seen.forget_others({session.id for session in queue}, began)

    def _end_overdue_sessions(self) -> None:
        manager = self._manager
        now = datetime.now(UTC)
        with manager.database.read() as transaction:
            overdue = [one for one in sessions.active(transaction) if (one.lease_expires_at or now) < now]
        for session in overdue:
            try:
                manager.end_session(session.id, f"its lease was over at {session.lease_expires_at:%H:%M:%S} UTC")
            except SessionNotFound:
                log.debug("Session %s ended by itself", session.id)

    def _clean_up_dead_labs(self) -> None:
        manager = self._manager
        with manager.database.read() as transaction:
            running = [lab for lab in labs.live(transaction) if lab.state == LabState.RUNNING]
        for lab in running:
            why = manager.runner.vanished(manager.boots.place(lab))
            if why is not None:
                manager.desk.take_down_dead(lab.id, why)

    def _take_down_idle_labs(self) -> None:
        manager = self._manager
        began = manager.desk.used.now()
        with manager.database.read() as transaction:
            running = [lab for lab in labs.live(transaction) if lab.state == LabState.RUNNING]
            active = {session.id for session in sessions.active(transaction)}
        for lab in running:
            limit = manager.config.idle_seconds if lab.session_id in active else manager.config.warm_seconds
            idle_seconds = manager.desk.used.silence_seconds(lab.id)
            if idle_seconds > limit:
                manager.desk.take_down_idle(lab.id, f"unused for {idle_seconds:.0f} s")
        manager.desk.used.forget_others({lab.id for lab in running}, began)

    def _finish_what_has_no_job(self) -> None:
        manager = self._manager
        with manager.database.read() as transaction:
            between = [lab.id for lab in labs.live(transaction) if lab.state != LabState.RUNNING]
        for lab_id in between:
            if manager.boots.find(lab_id) is None:
                manager.desk.take_down_unfinished(lab_id)

    def _end_orphans(self) -> None:
        manager = self._manager
        present = manager.runner.orphans(())
        with manager.database.read() as transaction:
            known = {lab.id for lab in labs.live(transaction)}
        for lab_id in present:
            if lab_id not in known:
                log.warning("Ending the orphaned lab %s", lab_id)
                manager.runner.end_orphan(lab_id)

    def _sweep(self) -> None:
        manager = self._manager
        present = manager.workspaces.present()
        with manager.database.read() as transaction:
            known = {lab.id for lab in labs.live(transaction)}
        for lab_id in present:
            if lab_id not in known:
                manager.workspaces.sweep(lab_id, KEPT_SECONDS)
        with manager.database.write() as transaction:
            sessions.prune(transaction, datetime.now(UTC) - timedelta(seconds=KEPT_SECONDS))

    def _interval_seconds(self) -> float:
        base = self._manager.config.reaper_seconds
        with self._manager.database.read() as transaction:
            queue = sessions.live(transaction)
        if not queue:
            return 6 * base
        if len(queue) == 1 and queue[0].state == SessionState.ACTIVE:
            return 3 * base
        return base
