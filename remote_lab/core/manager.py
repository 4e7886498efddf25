"""What users can ask of the queue, each as a few short transactions; of labs: `desk.py` and `inspection.py`.

These three are the edge of the core: they open the transactions, wait for jobs outside of them, and know no HTTP.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session as Transaction

from remote_lab.callers import OPEN, Caller
from remote_lab.config import Config
from remote_lab.core import labs, limits, overview, sessions
from remote_lab.core.access import Access
from remote_lab.core.acquires import PendingAcquires
from remote_lab.core.ahead import BootsAhead
from remote_lab.core.board import Board, Entry, Sight, entry_of
from remote_lab.core.boots import Boots, Job, LabRunner
from remote_lab.core.current import CurrentLabs
from remote_lab.core.db import Database, after_commit
from remote_lab.core.desk import LabDesk
from remote_lab.core.estimates import Expectation, Outlook
from remote_lab.core.inspection import LabInspection
from remote_lab.core.liveness import Liveness
from remote_lab.core.models import Session
from remote_lab.core.sessions import Wish
from remote_lab.core.uploads import Brought, Uploads
from remote_lab.core.views import HealthView, Holder, QueuePlace, SessionView
from remote_lab.core.waiting import NO_ROOM_SECONDS
from remote_lab.core.workspace import Workspaces, storage_problem
from remote_lab.errors import (
    NoActiveSession,
    ServerUnhealthy,
    SessionNotFound,
    TooManyHeldRequests,
)
from remote_lab.states import LabState, SessionState

log = logging.getLogger(__name__)

NO_WISH = Wish()
NOTHING_BROUGHT = Brought()
OWNER_REASON = "its owner ended it"
CI_JOB_REASON = "its CI job gave it back"
POLL_SECONDS = 5.0
MAX_POLL_SECONDS = 30.0
HELD_IN_FRONT = 64
"""How many waiting sessions may be held until it is their turn; those behind them are told when to ask again."""
QUICKEST_TURN_SECONDS = 0.005
"""No session keeps its slot for less: its begin and its end each wait for the disk."""


class LabManager:
    """The use cases; safe to call from many threads."""

    def __init__(self, config: Config, database: Database, runner: LabRunner, access: Access | None = None) -> None:
        self.config = config
        self.access = access or Access(database)
        self.uploads = limits.UploadLimits(config)
        self.database = database
        self.runner = runner
        self.workspaces = Workspaces(config.state_dir, config.max_upload_bytes, config.max_upload_files)
        self.board = Board(database)
        self._outlook = Outlook(database)
        self.boots = Boots(database, runner, self.workspaces, self._job_ended)
        pending = PendingAcquires()
        self._current = CurrentLabs(database, self.board)
        self.desk = LabDesk(config, database, runner, self.workspaces, self.boots, pending, self._current)
        self.inspection = LabInspection(config, database, runner, self.workspaces, self.boots, pending)
        self.brought = Uploads(config, database, runner)
        self._ahead = BootsAhead(config, runner, self.workspaces, self.boots, self.brought)
        self._started = time.monotonic()
        self.sessions_seen = Liveness()

    def open_session(
        self, wish: Wish = NO_WISH, caller: Caller = OPEN, brought: Brought = NOTHING_BROUGHT
    ) -> SessionView:
        """Put a new session in the queue and promote it at once when a slot is free.

        Raises QueueFull, LeaseTooLong, LimitExceeded, UploadNotFound.
        """
        if wish.lease_seconds is not None:
            sessions.check_lease(wish.lease_seconds, self.config.lease_seconds)
        with self.database.write() as transaction:
            limits.check_waiting(transaction, caller, self.config)
            session = sessions.enqueue(
                transaction, wish, self.config.max_waiting, self.database.clock.now(), caller.token_id
            )
            self.brought.bring(transaction, session, brought, self.database.clock.now())
            self.sessions_seen.touch(session.id)
            self._log_position_when_done(transaction, entry_of(session))
            self._admit(transaction)
        return self._view(self.board.sight_of(entry_of(session)), caller)

    def _log_position_when_done(self, transaction: Transaction, entry: Entry) -> None:
        def say() -> None:
            position = self.board.sight_of(entry).position
            log.info("Created session at position %d", position, extra={"session_id": entry.id})

        after_commit(transaction, say)

    def session(self, session_id: str, caller: Caller = OPEN) -> SessionView:
        """Where a session is in the queue, as this caller may know it; SessionNotFound.

        Asks the database for the reason of one that has ended, and after each change of who is active for estimates.
        """
        sight = self.board.sight(session_id)
        if sight is None:
            with self.database.read() as transaction:
                sight = self.board.sight_of(entry_of(sessions.get(transaction, session_id)))
        return self._view(sight, caller)

    def sight_at_once(self, session_id: str, caller: Caller) -> Sight | None:
        """What `session` looks at, for who may wait for nothing.

        None where that has to be waited for, where there is no such session and where the caller may not know it.
        """
        sight = self.board.sight_at_once(session_id)
        return sight if sight is not None and sessions.is_open_to(sight.entry, caller) else None

    def view_at_once(self, sight: Sight, caller: Caller, was_held: bool) -> SessionView | None:
        """What `session` returns; None where something of it has to be looked up.

        All who were held are answered at the same moment, when everybody's estimates have changed: with the last ones.
        """
        if sight.entry.is_active:
            return self._view(sight, caller)
        expected = self._outlook.known(sight, may_be_old=was_held)
        return None if expected is None else self._view_of_waiting(sight, caller, expected)

    def may_be_held(self, status: str, position: int) -> bool:
        """Whether a session waits, near enough to the front to be held until it is its turn."""
        return status == SessionState.WAITING and self._is_near(position)

    def _is_near(self, position: int) -> bool:
        return position < self.config.slots + HELD_IN_FRONT

    def wait_for_session(self, session_id: str, seconds: float, caller: Caller = OPEN) -> SessionView:
        """The same at once when it is active, else when its place has changed or the seconds are over.

        At once, with `retry_after_seconds`, when it is too far behind to be held or there is no room to.
        """
        first = self.session(session_id, caller)
        if not seconds or not self.may_be_held(first.status, first.position):
            return self.to_poll(first)
        has_moved = threading.Event()
        try:
            with self.inspection.waits.place(), self.sessions_seen.present(session_id):
                watch = self.board.watch(session_id, (first.status, first.position), has_moved.set)
                has_moved.wait(seconds)
                watch.cancel()
                return self.session(session_id, caller)
        except TooManyHeldRequests:
            return replace(first, retry_after_seconds=NO_ROOM_SECONDS)

    def to_poll(self, view: SessionView) -> SessionView:
        """A view for who is not held: it says when asking again makes sense."""
        if view.status == SessionState.ACTIVE:
            return view
        if self._is_near(view.position):
            usual = POLL_SECONDS if view.eta_seconds is None else view.eta_seconds / 4
        else:
            usual = self._until_near_seconds(view)
        # Whoever is in front may leave without a turn, and active sessions may be silent for less.
        silence_seconds = min(self.config.waiting_seconds, self.config.active_seconds)
        longest = max(1.0, min(MAX_POLL_SECONDS, silence_seconds / 3))
        return replace(view, retry_after_seconds=math.floor(min(max(usual, 1.0), longest)))

    def _until_near_seconds(self, view: SessionView) -> float:
        """In which time half of those that are held can have had their turn, if all are as quick as the quickest.

        So whoever comes back then is held long before their own turn, and nobody has to look out for everybody.
        """
        shortest = self._outlook.shortest_seconds() or 0.0
        turns = view.position - self.config.slots - HELD_IN_FRONT // 2
        return turns * max(shortest, QUICKEST_TURN_SECONDS) / self.config.slots

    def extend_session(self, session_id: str, lease_seconds: float, caller: Caller = OPEN) -> SessionView:
        """Let an active session go on for so long from now; LeaseTooLong, SessionNotFound, SessionWaiting."""
        with self.database.write() as transaction:
            limit = self.config.lease_seconds
            session = sessions.extend(transaction, session_id, lease_seconds, limit, self.database.clock.now())
        return self._view(self.board.sight_of(entry_of(session)), caller)

    def active_session(self, caller: Caller = OPEN) -> SessionView:
        """The head of the queue, if it is the caller's; NoActiveSession when it is not, or the queue is empty."""
        head = self.board.head()
        if head is None:
            raise NoActiveSession
        if not sessions.is_open_to(head.entry, caller):
            raise NoActiveSession(is_somebody_elses=True)
        return self._view(head, caller)

    def queue(self, caller: Caller = OPEN) -> list[QueuePlace]:
        """Who waits and who is active, in order, as this caller may know it."""
        return overview.places(self.board.live(), self._outlook.name, caller)

    def require_access(self, session_id: str, caller: Caller) -> None:
        """Raise SessionNotFound, as for one that never was, when a session is somebody else's.

        Nothing is raised for one that never was: whoever looks for it next does.
        """
        if caller.is_admin:
            return
        session: Entry | Session | None = self.board.entry(session_id)
        if session is None:
            with self.database.read() as transaction:
                session = sessions.find(transaction, session_id)
        if session is not None and not sessions.is_open_to(session, caller):
            raise SessionNotFound(session_id)

    def require_active(self, session_id: str) -> str | None:
        """Raise SessionNotFound or SessionWaiting unless the session may use labs now; returns its lab's topology."""
        lab = self._current.of(session_id)
        return None if lab is None else lab.topology

    def touch(self, session_id: str) -> None:
        """The session's owner is alive."""
        self.sessions_seen.touch(session_id)

    def heartbeat(self, session_id: str) -> None:
        """Prove that the session's owner is alive; SessionNotFound."""
        if self.board.entry(session_id) is None:
            with self.database.read() as transaction:
                sessions.get(transaction, session_id)
        self.touch(session_id)

    def end_session(self, session_id: str, reason: str, caller: Caller = OPEN) -> None:
        """End a session; its lab goes down behind this call, and the next session is active with it.

        An idle lab stays for the next session instead where REMOTE_LAB_WARM_SECONDS says so; one that was still
        referenced does not, because whoever used it did not say that they were done. `reason` is a clause for the
        owner, who may ask later; a caller who is not the owner is named in it. SessionNotFound when it has ended
        already.
        """
        with self.database.write() as transaction:
            session = sessions.get(transaction, session_id)
            self._end(transaction, session, _as_said_by(caller, session, reason))
            self._admit(transaction)

    def end_ci_job(self, ci_job: str, caller: Caller = OPEN) -> int:
        """End whatever a CI job, named by its id or its URL, left in the queue; returns how many sessions that were.

        Those of others stay. All of them at once, so that the end of one promotes no other of the same job.
        """
        with self.database.write() as transaction:
            named = sessions.of_ci_job(transaction, ci_job)
            found = [session for session in named if sessions.is_open_to(session, caller)]
            for session in found:
                self._end(transaction, session, CI_JOB_REASON)
            self._admit(transaction)
        return len(found)

    def _end(self, transaction: Transaction, session: Session, reason: str) -> None:
        lab = labs.own_in_slot(transaction, session)
        is_idle = lab is not None and lab.state == LabState.RUNNING and not labs.ref_count(transaction, lab)
        sessions.end(transaction, session, reason, self.database.clock.now())
        if lab is not None and not (is_idle and self.config.warm_seconds):
            self.boots.take_down(transaction, lab, f"its session ended ({reason})")
        _log_when_done(transaction, session, "Session ended: %s", reason)

    def check_database(self) -> None:
        """Raise ServerUnhealthy when the database does not answer, or its disk takes nothing more."""
        with _answering():
            self.database.check()
        if (problem := storage_problem(self.config.state_dir)) is not None:
            raise ServerUnhealthy(problem)

    def health(self) -> HealthView:
        """Uptime, the length of the queue, active sessions included, and all labs; ServerUnhealthy when unknown."""
        with _answering(), self.database.read() as transaction:
            found = [{"slot": lab.slot, "topology": lab.topology, "state": lab.state} for lab in labs.live(transaction)]
        uptime = time.monotonic() - self._started
        count = self.board.count()
        return HealthView(time.time(), uptime, count, count, self.config.slots, found, self.runner.provider)

    def admit(self) -> None:
        """Promote whoever can be; nothing is written when nobody can."""
        with self.database.write() as transaction:
            self._admit(transaction)

    def _admit(self, transaction: Transaction) -> None:
        config = self.config
        now = self.database.clock.now()
        for session in sessions.admit(transaction, config.slots, config.lease_seconds, now, config.ahead):
            self.sessions_seen.touch(session.id)
            _log_when_done(transaction, session, "Session is active in slot %d", session.slot)
        self._ahead.begin(transaction, now)

    def _job_ended(self, job: Job) -> None:
        self.sessions_seen.touch(job.session_id)
        self.desk.used.touch(job.place.lab_id)
        if self.config.ahead or self.board.someone_can_go_on(self.config.slots):
            self.admit()

    def _view(self, sight: Sight, caller: Caller) -> SessionView:
        entry = sight.entry
        if not entry.is_active:
            return self._view_of_waiting(sight, caller, self._outlook.expectation(sight.turn, sight.active))
        return SessionView(
            session_id=entry.id,
            status=entry.state,
            position=sight.position,
            slot=entry.slot,
            lease_expires_at=entry.lease_expires_at,
            eta_seconds=0.0,
            held_by=[],
            waiting=sight.waiting,
        )

    def _view_of_waiting(self, sight: Sight, caller: Caller, expected: Expectation) -> SessionView:
        entry = sight.entry
        return SessionView(
            session_id=entry.id,
            status=entry.state,
            position=sight.position,
            slot=None,
            lease_expires_at=None,
            eta_seconds=self._outlook.turn_in_seconds(sight, self.config.slots, expected),
            held_by=[self._holder(one, caller) for one in sight.active],
            waiting=sight.waiting,
        )

    def _holder(self, entry: Entry, caller: Caller) -> Holder:
        url = entry.ci_job_url if sessions.is_open_to(entry, caller) else None
        name = self._outlook.name(entry.token_id)
        return Holder(entry.slot or 0, name, entry.purpose, url, entry.activated_at)


def _log_when_done(transaction: Transaction, session: Session, message: str, value: object) -> None:
    """What a full disk undoes has not happened."""
    about = {"session_id": session.id}
    after_commit(transaction, lambda: log.info(message, value, extra=about))


def _as_said_by(caller: Caller, session: Session, reason: str) -> str:
    if caller.token_id is None or caller.token_id == session.token_id:
        return reason
    return f"token {caller.name} ended it" if reason == OWNER_REASON else f"{reason} (token {caller.name})"


@contextmanager
def _answering() -> Iterator[None]:
    """Raise ServerUnhealthy for what the database says when it does not answer."""
    try:
        yield
    except SQLAlchemyError as error:
        raise ServerUnhealthy("The database does not answer, see the server's log.") from error
