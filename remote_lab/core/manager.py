"""What users can ask of the queue, each as a few short transactions; what they can ask of labs is in `desk.py`.

These two are the edge of the core: they open the transactions, wait for jobs outside of them, and know no HTTP.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session as Transaction

from remote_lab.config import Config
from remote_lab.core import labs, sessions
from remote_lab.core.boots import Boots, Job, LabRunner
from remote_lab.core.db import Database
from remote_lab.core.desk import LabDesk
from remote_lab.core.liveness import Liveness
from remote_lab.core.models import Session
from remote_lab.core.views import HealthView, SessionView
from remote_lab.core.workspace import Workspaces
from remote_lab.errors import (
    NoActiveSession,
    ServerUnhealthy,
)

log = logging.getLogger(__name__)


class LabManager:
    """The use cases; safe to call from many threads."""

    def __init__(self, config: Config, database: Database, runner: LabRunner) -> None:
        self.config = config
        self.database = database
        self.runner = runner
        self.workspaces = Workspaces(config.state_dir, config.max_upload_bytes, config.max_upload_files)
        self.boots = Boots(database, runner, self.workspaces, self._job_ended)
        self.desk = LabDesk(config, database, runner, self.workspaces, self.boots)
        self._started = time.monotonic()
        self.sessions_seen = Liveness()

    def open_session(self) -> SessionView:
        """Put a new session in the queue and promote it at once when a slot is free; QueueFull."""
        now = datetime.now(UTC)
        with self.database.write() as transaction:
            session = sessions.enqueue(transaction, self.config.max_waiting, now)
            self.sessions_seen.touch(session.id)
            position = sessions.position(transaction, session)
            log.info("Created session at position %d", position, extra={"session_id": session.id})
            self._admit(transaction)
            return _view(transaction, session)

    def session(self, session_id: str) -> SessionView:
        """Where a session is in the queue; SessionNotFound."""
        with self.database.read() as transaction:
            return _view(transaction, sessions.get(transaction, session_id))

    def active_session(self) -> SessionView:
        """The head of the queue; NoActiveSession when it is empty."""
        with self.database.read() as transaction:
            session = sessions.head(transaction)
            if session is None:
                raise NoActiveSession
            return _view(transaction, session)

    def require_active(self, session_id: str) -> None:
        """Raise SessionNotFound or SessionWaiting unless the session may use labs now."""
        with self.database.read() as transaction:
            sessions.get_active(transaction, session_id)

    def touch(self, session_id: str) -> None:
        """The session's owner is alive."""
        self.sessions_seen.touch(session_id)

    def heartbeat(self, session_id: str) -> None:
        """Prove that the session's owner is alive; SessionNotFound."""
        with self.database.read() as transaction:
            sessions.get(transaction, session_id)
        self.touch(session_id)

    def end_session(self, session_id: str, reason: str) -> None:
        """End a session; its lab goes down behind this call, and the next session follows when it has.

        `reason` is a clause for the owner, who may ask later. SessionNotFound when it has ended already.
        """
        with self.database.write() as transaction:
            session = sessions.end(transaction, session_id, reason, datetime.now(UTC))
            if session.slot is not None:
                lab = labs.in_slot(transaction, session.slot)
                if lab is not None and lab.session_id == session.id:
                    self.boots.take_down(transaction, lab, f"its session ended ({reason})")
            self._admit(transaction)
        log.info("Session ended: %s", reason, extra={"session_id": session_id})

    def check_database(self) -> None:
        """Raise ServerUnhealthy when the database does not answer."""
        try:
            self.database.check()
        except SQLAlchemyError as error:
            raise ServerUnhealthy("The database does not answer, see the server's log.") from error

    def health(self) -> HealthView:
        """Uptime and the length of the queue, active sessions included."""
        with self.database.read() as transaction:
            count = len(sessions.live(transaction))
        return HealthView("ok", time.time(), time.monotonic() - self._started, count, count)

    def admit(self) -> None:
        """Promote whoever can be; nothing is written when nobody can."""
        with self.database.write() as transaction:
            self._admit(transaction)

    def _admit(self, transaction: Transaction) -> None:
        for session in sessions.admit(transaction, self.config.slots, datetime.now(UTC)):
            self.sessions_seen.touch(session.id)
            log.info("Session is active in slot %d", session.slot, extra={"session_id": session.id})

    def _job_ended(self, job: Job) -> None:
        self.sessions_seen.touch(job.session_id)
        self.desk.used.touch(job.place.lab_id)
        self.admit()


def _view(transaction: Transaction, session: Session) -> SessionView:
    return SessionView(session.id, session.state, sessions.position(transaction, session))
