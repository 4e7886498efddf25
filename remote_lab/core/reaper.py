"""The background loop: end who is silent, take down what is idle or dead, admit the next, sweep what nobody owns.

`tick()` is one round of named steps, and `recover()` the round before the first request; the thread around them is all
there is beside. A step that fails is logged and tried again in the next round, the others go on.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TypeVar

from remote_lab.core import backup, labs, pruning, schema, sessions
from remote_lab.core.clock import JUMP_SECONDS, follow_jump, take_over
from remote_lab.core.db import on_failure
from remote_lab.core.manager import LabManager
from remote_lab.core.models import Lab
from remote_lab.core.throttle import Tally
from remote_lab.errors import DatabaseUnavailable, ServerUnhealthy, SessionNotFound
from remote_lab.states import LabState, SessionState

log = logging.getLogger(__name__)

Item = TypeVar("Item")

BACKUP_CHECK_SECONDS = 3600.0
CROWD_SECONDS = 3600.0
"""How often it is said of somebody that they crowd the history."""
CROWDS_REMEMBERED = 64

OPENING_SECONDS = 60.0
"""No transaction takes longer, however long it waits for the others."""

BUSY_CHANGES = 100
"""So many commits since the last round are a busy server, although its queue may be empty at the moment of the look."""

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
        self._clock_is_ours = False
        self._changes = 0
        """How many commits there were before the last round's end."""
        self._losses: dict[str, str] = {}
        """Of each lab that lost devices, what was logged of it."""
        self._round_finished: Callable[[], None] = lambda: None
        self._longest_pause_seconds = math.inf
        self._next_backup = time.monotonic() + BACKUP_CHECK_SECONDS
        self._crowds = Tally(1, CROWD_SECONDS, CROWDS_REMEMBERED)

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

    def start(self, round_finished: Callable[[], None] = lambda: None, longest_pause_seconds: float = math.inf) -> None:
        """Begin the loop on a thread of its own.

        `round_finished` is called after every round, between two of which it rests for so long at the most.
        """
        self._round_finished = round_finished
        self._longest_pause_seconds = longest_pause_seconds
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
        self._do(self._follow_clock)
        with manager.database.read() as transaction:
            queue, found = sessions.live(transaction), labs.live(transaction)
        self._for_each([lab for lab in found if lab.state == LabState.RUNNING], self._adopt)
        if queue:
            log.info("Recovered %d sessions: %s", len(queue), ", ".join(f"{item.id} {item.state}" for item in queue))
        self.tick()

    def tick(self) -> float:
        """Do one round; returns the seconds until the next is due."""
        steps: list[Callable[[], None]] = [
            self._follow_clock,
            self._end_silent_sessions,
            self._end_overdue_sessions,
            self._clean_up_dead_labs,
            self._take_down_idle_labs,
            self._finish_what_has_no_job,
            self._manager.admit,
            self._end_orphans,
            self._manager.access.write_uses,
            self._sweep,
            self._forget,
            self._back_up,
        ]
        for step in steps:
            self._do(step)
        self._finished = time.monotonic()
        return self._interval_seconds()

    def _do(self, step: Callable[[], None]) -> None:
        try:
            step()
        except DatabaseUnavailable as fault:
            log.error("Reaper: %s is put off. %s", step.__name__.strip("_").replace("_", " "), fault)
        except Exception:
            log.exception("Reaper: %s failed and is tried again", step.__name__.strip("_").replace("_", " "))

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                seconds = self.tick()
            except Exception:
                log.exception("Reaper: the database does not answer")
                seconds = self._manager.config.reaper_seconds
            self._round_finished()
            self._stop.wait(min(seconds, self._longest_pause_seconds))

    def _for_each(self, items: Iterable[Item], act: Callable[[Item], None]) -> None:
        """Do something with each; one that fails keeps nobody from the others and is tried again."""
        for item in items:
            try:
                act(item)
            except DatabaseUnavailable:
                raise
            except Exception:
                what, which = act.__name__.strip("_").replace("_", " "), getattr(item, "id", item)
                log.exception("Reaper: %s %s failed and is tried again", what, which)

    def _adopt(self, lab: Lab) -> None:
        why = self._manager.runner.probe(self._manager.boots.place(lab))
        if why is None:
            log.info("Adopted lab %s in slot %d", lab.topology, lab.slot, extra={"session_id": lab.session_id})
        else:
            self._manager.desk.take_down_dead(lab.id, why)

    def _follow_clock(self) -> None:
        database = self._manager.database
        if not self._clock_is_ours:
            with database.write() as transaction:
                take_over(transaction, database.clock)
            self._clock_is_ours = True
        jump_seconds = database.clock.jump_seconds()
        if abs(jump_seconds) < JUMP_SECONDS:
            return
        with database.write() as transaction:
            follow_jump(transaction, database.clock, jump_seconds)
            # Inside, so that nobody records a moment by the old clock between the records' move and the clock's.
            database.clock.move(jump_seconds)
            on_failure(transaction, lambda: database.clock.move(-jump_seconds))

    def _end_silent_sessions(self) -> None:
        manager = self._manager
        limits = {
            SessionState.WAITING: manager.config.waiting_seconds,
            SessionState.ACTIVE: manager.config.active_seconds,
        }
        began = manager.sessions_seen.now()
        queue = manager.board.live()
        with manager.database.read() as transaction:
            found = labs.live(transaction)
        # Also when it is the lab of somebody before that an acquire waits for.
        busy = {lab.slot for lab in found if lab.state in (LabState.STARTING, LabState.STOPPING)}
        for session in queue:
            if session.state == SessionState.ACTIVE and session.slot in busy:
                manager.sessions_seen.touch(session.id)
            limit = limits[SessionState(session.state)]
            silence = manager.sessions_seen.silence_seconds(session.id)
            if silence <= limit:
                continue
            self._end(session.id, f"silent for {silence:.0f} s, {session.state} sessions may {limit:g} s")
        # One that is being opened has been seen already and is in the queue only when its transaction is on disk.
        manager.sessions_seen.forget_others({session.id for session in queue}, began - OPENING_SECONDS)

    def _end_overdue_sessions(self) -> None:
        manager = self._manager
        now = manager.database.clock.now()
        overdue = [one for one in manager.board.live() if one.is_active and (one.lease_expires_at or now) < now]
        for session in overdue:
            self._end(session.id, f"its lease was over at {session.lease_expires_at:%H:%M:%S} UTC")

    def _end(self, session_id: str, reason: str) -> None:
        try:
            self._manager.end_session(session_id, reason)
        except SessionNotFound:
            log.debug("Session %s ended by itself", session_id)

    def _clean_up_dead_labs(self) -> None:
        manager = self._manager
        with manager.database.read() as transaction:
            running = [lab for lab in labs.live(transaction) if lab.state == LabState.RUNNING]
        self._for_each(running, self._clean_up_if_dead)

        self._losses = {lab.id: self._losses[lab.id] for lab in running if lab.id in self._losses}

    def _clean_up_if_dead(self, lab: Lab) -> None:
        desk = self._manager.desk
        why = self._manager.runner.vanished(self._manager.boots.place(lab))
        if why is not None:
            desk.take_down_dead(lab.id, why)
            return
        loss = desk.device_loss(lab)
        if loss is not None and loss != self._losses.get(lab.id):
            # Whoever uses the lab may want to look at what is left of it.
            self._losses[lab.id] = loss
            about = {"session_id": lab.session_id, "topology": lab.topology}
            log.error("Of the lab: %s. Who uses it keeps it, the next to acquire it gets a new one", loss, extra=about)

    def _take_down_idle_labs(self) -> None:
        manager = self._manager
        began = manager.desk.used.now()
        with manager.database.read() as transaction:
            running = [lab for lab in labs.live(transaction) if lab.state == LabState.RUNNING]
            active = {session.id for session in sessions.active(transaction)}
            waiting = labs.ahead(transaction)
        for lab in running:
            if lab.id in waiting:
                manager.desk.used.touch(lab.id)  # its owner's time with it has not begun
                continue
            limit = manager.config.idle_seconds if lab.session_id in active else manager.config.warm_seconds
            idle_seconds = manager.desk.used.silence_seconds(lab.id)
            if idle_seconds > limit:
                manager.desk.take_down_idle(lab.id, f"unused for {idle_seconds:.0f} s")
        manager.desk.used.forget_others({lab.id for lab in running}, began)

    def _finish_what_has_no_job(self) -> None:
        manager = self._manager
        with manager.database.read() as transaction:
            between = [lab.id for lab in labs.live(transaction) if lab.state != LabState.RUNNING]
        self._for_each([lab_id for lab_id in between if manager.boots.find(lab_id) is None], self._take_down_unfinished)

    def _take_down_unfinished(self, lab_id: str) -> None:
        self._manager.desk.take_down_unfinished(lab_id)

    def _end_orphans(self) -> None:
        manager = self._manager
        present = manager.runner.orphans(())
        with manager.database.read() as transaction:
            known = {lab.id for lab in labs.live(transaction)}
        self._for_each([lab_id for lab_id in present if lab_id not in known], self._end_orphan)

    def _end_orphan(self, lab_id: str) -> None:
        log.warning("Ending the orphaned lab %s", lab_id)
        self._manager.runner.end_orphan(lab_id)

    def _sweep(self) -> None:
        manager = self._manager
        present = manager.workspaces.present()
        before = manager.database.clock.now() - timedelta(seconds=pruning.KEPT_SECONDS)
        with manager.database.read() as transaction:
            known = {lab.id for lab in labs.live(transaction)}
            failed = set(labs.failed_since(transaction, before, pruning.KEPT_LOGS))
        self._for_each([lab_id for lab_id in present if lab_id not in known | failed], manager.workspaces.discard)
        self._for_each([lab_id for lab_id in present if lab_id in failed], self._keep_log_only)
        manager.brought.sweep(manager.database.clock.now())

    def _forget(self) -> None:
        manager = self._manager
        now = manager.database.clock.now()
        with manager.database.read() as transaction:
            doomed = pruning.doomed(transaction, now, manager.config.history_days)
        for part in doomed.batches():
            with manager.database.write() as transaction:
                pruning.forget(transaction, part)
        if doomed.crowd is not None and not self._crowds.count(doomed.crowd.token):
            log.warning(
                "The history has more than %d entries: of the %d of sessions %s the first go before their time, "
                "those without a lab at the very first",
                pruning.KEPT_ENTRIES,
                doomed.crowd.entries,
                "without a token" if doomed.crowd.token is None else f"of token {doomed.crowd.token}",
            )

    def _keep_log_only(self, lab_id: str) -> None:
        self._manager.workspaces.discard(lab_id, keep_log=True)

    def _back_up(self) -> None:
        """Once an hour, see whether it is time for the copy of today; the start has seen to it as well."""
        now = time.monotonic()
        if now < self._next_backup:
            return
        self._next_backup = now + BACKUP_CHECK_SECONDS
        path = self._manager.database.path
        if backup.is_due(path):
            schema.back_up_daily(path)

    def _interval_seconds(self) -> float:
        base = self._manager.config.reaper_seconds
        before, self._changes = self._changes, self._manager.database.changes.count()
        if self._changes - before >= BUSY_CHANGES:
            return base
        head = self._manager.board.head()
        if head is None:
            return 6 * base
        if head.entry.is_active and self._manager.board.count() == 1:
            return 3 * base
        return base
