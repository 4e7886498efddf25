"""What the owner of a session can do with labs, and how labs are taken down that nobody asked to take down."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from remote_lab.config import Config
from remote_lab.core import labs, sessions
from remote_lab.core.boots import Boots, Job, LabRunner
from remote_lab.core.db import Database, after_commit
from remote_lab.core.labs import Decision
from remote_lab.core.liveness import Liveness
from remote_lab.core.models import Lab
from remote_lab.core.views import Acquired, Devices, LabView
from remote_lab.core.workspace import Upload, UploadedFile, Workspaces
from remote_lab.errors import LabBootCancelled, LabBusy, LabInUse, LabNotFound, TooManyHeldRequests
from remote_lab.states import LabState

log = logging.getLogger(__name__)


class LabDesk:
    """The use cases of labs; safe to call from many threads."""

    def __init__(
        self,
        config: Config,
        database: Database,
        runner: LabRunner,
        workspaces: Workspaces,
        boots: Boots,
    ) -> None:
        self.config = config
        self.database = database
        self.runner = runner
        self.workspaces = workspaces
        self.boots = boots
        self.used = Liveness()
        self._max_held = max(1, config.threads * 3 // 4)
        self._held = threading.BoundedSemaphore(self._max_held)

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
                        self.used.touch(lab.id)
                        return Acquired(reused=True, devices=lab.devices or [])
                    if job is not None and decision in (Decision.BOOT, Decision.JOIN):
                        return Acquired(reused=decision is Decision.JOIN, devices=self._boot_result(session_id, job))
                    if job is not None:
                        job.done.wait()
            finally:
                self.workspaces.release(upload)

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
        self.used.touch(lab.id)

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
            with self.database.read() as transaction:
                sessions.get_active(transaction, session_id)
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

    @contextmanager
    def _holding(self) -> Iterator[None]:
        """Hold a request for as long as a lab takes, if that leaves threads for everybody else."""
        if not self._held.acquire(blocking=False):
            raise TooManyHeldRequests(self._max_held)
        try:
            yield
        finally:
            self._held.release()
