"""What the owner of a session can do with labs, and how labs are taken down that nobody asked to take down."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass

from remote_lab.callers import OPEN, Caller
from remote_lab.config import Config
from remote_lab.core import labs, limits, sessions
from remote_lab.core.acquires import PendingAcquires
from remote_lab.core.boots import NO_THREAD, Boots, Job, LabRunner
from remote_lab.core.current import CurrentLabs
from remote_lab.core.db import Database, after_commit
from remote_lab.core.labs import Decision
from remote_lab.core.liveness import Liveness
from remote_lab.core.models import Lab
from remote_lab.core.views import Acquired, Devices
from remote_lab.core.waiting import Room
from remote_lab.core.workspace import Upload, UploadedFile, Workspaces
from remote_lab.errors import (
    LabBootCancelled,
    LabBusy,
    LabInUse,
    LabNotFound,
    RemoteLabError,
    ServerUnhealthy,
    TooManyHeldRequests,
    TopologyNotAllowed,
)
from remote_lab.states import LabState

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settled:
    """The lab that an acquire has a reference to."""

    reused: bool
    job: Job | None
    """Its boot, while that is under way."""
    devices: Devices
    """When it runs already."""


class LabDesk:
    """The use cases of labs; safe to call from many threads."""

    def __init__(
        self,
        config: Config,
        database: Database,
        runner: LabRunner,
        workspaces: Workspaces,
        boots: Boots,
        pending: PendingAcquires,
        current: CurrentLabs,
    ) -> None:
        self.config = config
        self.database = database
        self.runner = runner
        self.workspaces = workspaces
        self.boots = boots
        self.used = Liveness()
        self._pending = pending
        self._current = current
        self.acquires = Room(max(1, config.threads * 3 // 8))

    def acquire(
        self,
        session_id: str,
        topology: UploadedFile,
        extra_files: list[UploadedFile],
        reuse: bool,
        acquire_id: str | None = None,
        caller: Caller = OPEN,
    ) -> Acquired:
        """Give the session the uploaded lab: share the running one, join its boot, or boot it, by the acquire table.

        `acquire_id` is the user's name for it: by the same name it is the same reference, however often it is asked.
        Where no sandbox holds labs, callers who are not trusted upload plain data only.
        Returns when the devices are there. Raises an UploadError, LabBusy, LabBootFailed, LabBootCancelled,
        TooManyHeldRequests, and SessionNotFound when the session ends meanwhile.
        """
        with self.acquires.place():
            upload = self._store(session_id, topology, extra_files, reuse, caller)
            try:
                self._check_allowed(upload, caller)
                while not isinstance(step := self._step(session_id, upload, reuse, acquire_id), Settled):
                    step.done.wait()
            finally:
                self.workspaces.release(upload)
            return Acquired(step.reused, step.devices if step.job is None else self._boot_result(session_id, step.job))

    def acquire_without_waiting(
        self,
        session_id: str,
        topology: UploadedFile,
        extra_files: list[UploadedFile],
        reuse: bool,
        acquire_id: str | None = None,
        caller: Caller = OPEN,
        patience_seconds: float = 0.0,
    ) -> Acquired | None:
        """The same, but returns None as soon as the lab is on its way; `lab()` shows how far it is.

        With patience it is waited for so long, if there is room to wait, and None means that it is not up by then.
        Raises an UploadError, LabBusy and SessionNotFound, and if it has waited, LabBootFailed and LabBootCancelled.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(self.acquires.place() if patience_seconds else nullcontext())
            except TooManyHeldRequests:
                patience_seconds = 0.0
            deadline = time.monotonic() + patience_seconds
            upload = self._store(session_id, topology, extra_files, reuse, caller)
            step: Settled | Job | None = None
            try:
                self._check_allowed(upload, caller)
                step = self._step_until(deadline, session_id, upload, reuse, acquire_id)
            finally:
                if not isinstance(step, Job):
                    self.workspaces.release(upload)
            if isinstance(step, Settled):
                if step.job is None:
                    return Acquired(step.reused, step.devices)
                return self._booted_until(deadline, session_id, step.reused, step.job) if patience_seconds else None
        self._pending.begin(session_id, acquire_id)
        waiting = threading.Thread(target=self._go_on, args=(step, session_id, upload, reuse, acquire_id), daemon=True)
        try:
            waiting.start()
        except (RuntimeError, MemoryError) as error:
            self._pending.end(session_id, acquire_id)
            self.workspaces.release(upload)
            raise ServerUnhealthy(NO_THREAD) from error
        return None

    def _go_on(self, job: Job, session_id: str, upload: Upload, reuse: bool, acquire_id: str | None) -> None:
        """Go on deciding for somebody who does not wait, until the lab is on its way."""
        step: Settled | Job = job
        try:
            while isinstance(step, Job):
                step.done.wait()
                step = self._step(session_id, upload, reuse, acquire_id)
        except RemoteLabError as error:
            log.warning("Nobody hears it: %s", error, extra={"session_id": session_id, "topology": upload.topology})
        finally:
            self._pending.end(session_id, acquire_id)
            self.workspaces.release(upload)

    def _store(
        self, session_id: str, topology: UploadedFile, extra_files: list[UploadedFile], reuse: bool, caller: Caller
    ) -> Upload:
        """Write an upload, unless it is that of the lab which runs: then the disk is spared what nobody would read."""
        lab = self._current.of(session_id) if reuse and self._may_be_anything(caller) else None
        known_identity = lab.identity if lab is not None and lab.is_running else None
        return self.workspaces.store(topology, extra_files, known_identity)

    def _may_be_anything(self, caller: Caller) -> bool:
        return caller.is_trusted or self.config.trust_uploads or self.runner.holds_labs

    def _check_allowed(self, upload: Upload, caller: Caller) -> None:
        """Raise TopologyNotAllowed for what may not run here, unless its sender is trusted."""
        if self._may_be_anything(caller):
            return
        findings = self.runner.admit(self.workspaces.directory(upload.lab_id), upload.topology)
        if findings:
            raise TopologyNotAllowed(upload.topology, [asdict(one) for one in findings])

    def _step(self, session_id: str, upload: Upload, reuse: bool, acquire_id: str | None) -> Settled | Job:
        """Decide once; returns the lab that was settled on, or a job to wait for before deciding again."""
        decision, lab, job, is_shared = self._decide(session_id, upload, reuse, acquire_id)
        is_first = decision is Decision.TAKE_OVER
        if decision is Decision.ATTACH or (is_first and lab.state == LabState.RUNNING):
            # Of devices that died in a shared lab nothing is made: who used it before may go on with the rest.
            if why := self.runner.vanished(self.boots.place(lab)) or (not is_shared and self.device_loss(lab)):
                return self.take_down_dead(lab.id, why) or self._step(session_id, upload, reuse, acquire_id)
            self.used.touch(lab.id)
            return Settled(reused=not is_first, job=None, devices=lab.devices or [])
        if job is None:
            raise ServerUnhealthy("The boot of this lab was lost; it is being cleaned up. Try again in a few seconds.")
        job.check()
        return job if decision in (Decision.WAIT, Decision.REPLACE) else Settled(decision is Decision.JOIN, job, [])

    def _step_until(
        self, deadline: float, session_id: str, upload: Upload, reuse: bool, acquire_id: str | None
    ) -> Settled | Job:
        """Decide again and again until a lab is settled on or the time is over, by `time.monotonic()`."""
        step = self._step(session_id, upload, reuse, acquire_id)
        while isinstance(step, Job) and step.done.wait(max(0.0, deadline - time.monotonic())):
            step = self._step(session_id, upload, reuse, acquire_id)
        return step

    def _booted_until(self, deadline: float, session_id: str, reused: bool, job: Job) -> Acquired | None:
        if not job.done.wait(max(0.0, deadline - time.monotonic())):
            return None
        try:
            return Acquired(reused, self._boot_result(session_id, job))
        except LabBootCancelled:
            if self.boots.are_ending():  # with the server: who asks for the lab again gets it after its restart
                return None
            raise

    def device_loss(self, lab: Lab) -> str | None:
        """Which devices of a running lab died, as a clause; None when none did."""
        dead = self.runner.dead_devices(self.boots.place(lab), [device["name"] for device in lab.devices or []])
        return f"not running: {', '.join(dead)}" if dead else None

    def release(self, session_id: str) -> None:
        """Give back one of the session's references; none below zero. LabNotFound when it has no lab."""
        with self.database.write() as transaction:
            session = sessions.get_active(transaction, session_id)
            lab = labs.of_session(transaction, session)
            if lab is None:
                raise LabNotFound
            labs.release(transaction, lab, session)
        self.used.touch(lab.id)

    def release_named(self, session_id: str, acquire_id: str) -> None:
        """Give back the session's reference of this name, also one that is still being decided on; none is no error."""
        with self.database.write() as transaction:
            session = sessions.get_active(transaction, session_id)
            self._pending.give_up(session_id, acquire_id)
            labs.release_named(transaction, session, acquire_id)
            lab = labs.of_session(transaction, session)
        if lab is not None:
            self.used.touch(lab.id)

    def destroy(self, session_id: str, force: bool) -> bool:
        """Take the session's lab down behind this call, also while it boots; False when there is none.

        Without `force`, LabInUse while it is referenced.
        """
        with self.database.write() as transaction:
            session = sessions.get_active(transaction, session_id)
            lab = labs.own_in_slot(transaction, session)
            if lab is None:
                return False
            ref_count = labs.ref_count(transaction, lab)
            if ref_count and not force:
                raise LabInUse(lab.topology, ref_count)
            self.boots.take_down(transaction, lab, "it was destroyed by its session")
        return True

    def _decide(
        self, session_id: str, upload: Upload, reuse: bool, acquire_id: str | None
    ) -> tuple[Decision, Lab, Job | None, bool]:
        """Decide and act in one transaction.

        Returns the lab it is about, the job to wait for, and whether somebody used the lab before.
        """
        now = self.database.clock.now()
        with self.database.write() as transaction:
            session = sessions.get_active(transaction, session_id)
            if self._pending.is_given_up(session_id, acquire_id):
                raise LabBootCancelled("whoever asked for it gave it up")
            lab = labs.in_slot(transaction, session.slot or 0)
            if lab is None:
                limits.check_boots(transaction, session, self.config, now)
                self.workspaces.write(upload)  # if the lab that was seen to run has gone since
                lab = labs.claim(transaction, upload.lab_id, session, upload.identity, upload.topology, now, acquire_id)
                after_commit(transaction, lambda: self.workspaces.keep(upload))
                return Decision.BOOT, lab, self.boots.boot(transaction, lab), False
            ref_count = labs.ref_count(transaction, lab)
            # References go when a lab begins to stop: one that has any is starting or running.
            if acquire_id is not None and labs.has_reference(transaction, lab, session, acquire_id):
                decision = Decision.ATTACH if lab.state == LabState.RUNNING else Decision.JOIN
                return decision, lab, self.boots.find(lab.id), ref_count > 1
            decision = labs.decide(
                LabState(lab.state), lab.identity == upload.identity, reuse, ref_count, lab.is_unused
            )
            match decision:
                case Decision.REFUSE:
                    raise LabBusy(lab.topology, ref_count)
                case Decision.ATTACH | Decision.JOIN | Decision.TAKE_OVER:
                    labs.add_reference(transaction, lab, session, now, acquire_id)
                    return decision, lab, self.boots.find(lab.id), ref_count > 0
                case _:
                    stopping = self.boots.take_down(transaction, lab, f"{upload.topology} needs its slot")
                    return decision, lab, stopping, False

    def _boot_result(self, session_id: str, job: Job) -> Devices:
        try:
            return job.result()
        except LabBootCancelled:
            with self.database.read() as transaction:
                sessions.get_active(transaction, session_id)
            raise

    def take_down_dead(self, lab_id: str, why: str) -> Job | None:
        """Clean up after a running lab that was found dead, and record why; None when that is over already."""
        with self.database.write() as transaction:
            lab = transaction.get(Lab, lab_id)
            if lab is None or lab.state != LabState.RUNNING:
                return self.boots.find(lab_id)
            log.error("The lab died: %s", why, extra={"session_id": lab.session_id, "topology": lab.topology})
            lab.failure = f"died: {why}"
            transaction.flush()
            return self.boots.take_down(transaction, lab, why)

    def take_down_all(self, reason: str) -> None:
        """Take down whatever holds a slot, behind this call; the sessions go on."""
        with self.database.write() as transaction:
            for lab in labs.live(transaction):
                self.boots.take_down(transaction, lab, reason)

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
