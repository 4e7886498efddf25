"""What users can ask for, each as a few short transactions: sessions, labs, and what a restart finds.

This is the edge of the core: it opens the transactions, waits for jobs outside of them, and knows no HTTP.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session as Transaction

from remote_lab.config import Config
from remote_lab.core import labs, sessions
from remote_lab.core.boots import Boots, Job, LabRunner
from remote_lab.core.db import Database, after_commit
from remote_lab.core.labs import Decision
from remote_lab.core.liveness import Liveness
from remote_lab.core.models import Lab, Session
from remote_lab.core.workspace import Upload, UploadedFile, Workspaces
from remote_lab.errors import (
    LabBootCancelled,
    LabBusy,
    LabInUse,
    LabNotFound,
    NoActiveSession,
    ServerUnhealthy,
    TooManyHeldRequests,
)
from remote_lab.states import LabState

log = logging.getLogger(__name__)

Devices = list[dict[str, Any]]


@dataclass(frozen=True)
class SessionView:
    """A session as its owner sees it; `position` counts everybody in front of it."""

    session_id: str
    status: str
    position: int


@dataclass(frozen=True)
class LabView:
    """The lab of a session; `netlab_status` is what netlab says of it, None when there is none."""

    running: bool
    topology: str | None
    ref_count: int
    devices: Devices
    netlab_status: str | None


@dataclass(frozen=True)
class HealthView:
    """What the server is doing; `timestamp` in seconds since the epoch, `uptime` in seconds."""

    status: str
    timestamp: float
    uptime: float
    sessions: int
    queue_length: int


@dataclass(frozen=True)
class Acquired:
    """The devices of an acquired lab, and whether it was there before."""

    reused: bool
    devices: Devices


class LabManager:
    """The use cases; safe to call from many threads."""

    def __init__(self, config: Config, database: Database, runner: LabRunner) -> None:
        self.config = config
        self.database = database
        self.runner = runner
        self.workspaces = Workspaces(config.state_dir, config.max_upload_bytes, config.max_upload_files)
        self.boots = Boots(database, runner, self.workspaces, self._job_ended)
        self._started = time.monotonic()
        self.sessions_seen = Liveness()
        self.labs_used = Liveness()
        self._max_held = max(1, config.threads * 3 // 4)
        self._held = threading.BoundedSemaphore(self._max_held)

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

    def acquire(
        self, session_id: str, topology: UploadedFile, extra_files: list[UploadedFile], reuse: bool
    ) -> Acquired:
        """Give the session the uploaded lab: share the running one, join its boot, or boot it, by the acquire table.

        Returns when the devices are there. Raises an UploadError, LabBusy, LabBootFailed, LabBootCancelled,
        TooManyHeldRequests, and SessionNotFound when the session ends meanwhile.
        """
        with self._holding():
            upload = self.workspaces.store(topology, extra_files)
            try:
                while True:
                    decision, lab, job = self._decide(session_id, upload, reuse)
                    if decision is Decision.ATTACH and not self._found_dead(lab):
                        self.labs_used.touch(lab.id)
                        return Acquired(reused=True, devices=lab.devices or [])
                    if job is not None and decision in (Decision.BOOT, Decision.JOIN):
                        return Acquired(reused=decision is Decision.JOIN, devices=self._boot_result(session_id, job))
                    if job is not None:
                        job.done.wait()
            finally:
                self.workspaces.release(upload)

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

    def running_labs(self) -> list[str]:
        """The topologies of all labs that are up."""
        with self.database.read() as transaction:
            return [lab.topology for lab in labs.live(transaction) if lab.state == LabState.RUNNING]

    def lab(self, session_id: str) -> LabView:
        """The session's lab, also when it has none; SessionNotFound or SessionWaiting."""
        with self.database.read() as transaction:
            lab = labs.of_session(transaction, sessions.get_active(transaction, session_id))
            if lab is None or lab.state != LabState.RUNNING:
                return LabView(running=False, topology=None, ref_count=0, devices=[], netlab_status=None)
            ref_count = labs.ref_count(transaction, lab)
        status = self.runner.status(self.boots.place(lab))
        return LabView(True, lab.topology, ref_count, lab.devices or [], status)

    def devices(self, session_id: str) -> Devices:
        """The devices of the session's running lab; LabNotFound when it has none."""
        with self.database.read() as transaction:
            lab = labs.of_session(transaction, sessions.get_active(transaction, session_id))
            if lab is None or lab.state != LabState.RUNNING:
                raise LabNotFound
            return lab.devices or []

    def release(self, session_id: str) -> None:
        """Give back one of the session's references; none below zero. LabNotFound when it has no lab."""
        with self.database.write() as transaction:
            session = sessions.get_active(transaction, session_id)
            lab = labs.of_session(transaction, session)
            if lab is None:
                raise LabNotFound
            labs.release(transaction, lab, session)
        self.labs_used.touch(lab.id)

    def destroy(self, session_id: str, force: bool) -> bool:
        """Take the session's lab down behind this call, also while it boots; False when there is none.

        Without `force`, LabInUse while it is referenced.
        """
        with self.database.write() as transaction:
            session = sessions.get_active(transaction, session_id)
            lab = labs.in_slot(transaction, session.slot or 0)
            if lab is None:
                return False
            ref_count = labs.ref_count(transaction, lab)
            if ref_count and not force:
                raise LabInUse(lab.topology, ref_count)
            self.boots.take_down(transaction, lab, "it was destroyed by its session")
        return True

    def _decide(self, session_id: str, upload: Upload, reuse: bool) -> tuple[Decision, Lab, Job | None]:
        """Decide and act in one transaction; returns the lab it is about and the job to wait for."""
        now = datetime.now(UTC)
        with self.database.write() as transaction:
            session = sessions.get_active(transaction, session_id)
            lab = labs.in_slot(transaction, session.slot or 0)
            if lab is None:
                lab = labs.claim(transaction, upload.lab_id, session, upload.identity, upload.topology, now)
                after_commit(transaction, lambda: self.workspaces.keep(upload))
                return Decision.BOOT, lab, self.boots.boot(transaction, lab)
            ref_count = labs.ref_count(transaction, lab)
            decision = labs.decide(LabState(lab.state), lab.identity == upload.identity, reuse, ref_count)
            match decision:
                case Decision.REFUSE:
                    raise LabBusy(lab.topology, ref_count)
                case Decision.ATTACH | Decision.JOIN:
                    labs.add_reference(transaction, lab, session, now)
                    return decision, lab, self.boots.find(lab.id)
                case _:
                    return decision, lab, self.boots.take_down(transaction, lab, f"{upload.topology} needs its slot")

    def _boot_result(self, session_id: str, job: Job) -> Devices:
        try:
            return job.result()
        except LabBootCancelled:
            self.require_active(session_id)
            raise

    def _found_dead(self, lab: Lab) -> bool:
        """Whether a lab that should be running has died; if so it is on its way down."""
        why = self.runner.vanished(self.boots.place(lab))
        if why is not None:
            self.take_down_dead(lab.id, why)
        return why is not None

    def take_down_dead(self, lab_id: str, why: str) -> None:
        """Clean up after a running lab that was found dead, and record why."""
        with self.database.write() as transaction:
            lab = transaction.get(Lab, lab_id)
            if lab is not None and lab.state == LabState.RUNNING:
                log.error("Lab %s died: %s", lab.topology, why, extra={"session_id": lab.session_id})
                lab.failure = f"died: {why}"
                transaction.flush()
                self.boots.take_down(transaction, lab, why)

    def take_down_idle(self, lab_id: str, why: str) -> None:
        """Take a running lab down if it is still unreferenced."""
        with self.database.write() as transaction:
            lab = transaction.get(Lab, lab_id)
            if lab is not None and lab.state == LabState.RUNNING and labs.ref_count(transaction, lab) == 0:
                self.boots.take_down(transaction, lab, why)

    def take_down_unfinished(self, lab_id: str) -> None:
        """Clean up after a starting or stopping lab whose job died, or could not record its end."""
        with self.database.write() as transaction:
            lab = transaction.get(Lab, lab_id)
            if lab is not None and lab.state in (LabState.STARTING, LabState.STOPPING):
                self.boots.take_down(transaction, lab, "its boot or teardown was cut off")

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
        self.labs_used.touch(job.place.lab_id)
        self.admit()

    @contextmanager
    def _holding(self) -> Iterator[None]:
        """Hold a request for as long as a lab takes, if that leaves threads for everybody else."""
        if not self._held.acquire(blocking=False):
            raise TooManyHeldRequests(self._max_held)
        try:
            yield
        finally:
            self._held.release()


def _view(transaction: Transaction, session: Session) -> SessionView:
    return SessionView(session.id, session.state, sessions.position(transaction, session))
