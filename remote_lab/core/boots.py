"""Runs boots and teardowns on worker threads, one job for each lab, and knows who waits for which.

A job is claimed inside the write transaction that makes a lab starting or stopping, begins with its commit, and is
forgotten inside the one that records its end: while nobody writes, such a lab has a job and no other lab has one. Its
thread calls the runner with no transaction open, records the end, wakes the waiters and lets the queue move on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy.orm import Session as Transaction

from remote_lab import logs
from remote_lab.core import history, labs
from remote_lab.core.db import Database, after_commit, on_failure
from remote_lab.core.models import Lab
from remote_lab.core.workspace import Workspaces
from remote_lab.errors import DatabaseUnavailable, LabBootCancelled, LabBootFailed, LabTeardownFailed, ServerUnhealthy
from remote_lab.netlab.allowlist import Finding
from remote_lab.netlab.runner import Device, DeviceState, LabPlace
from remote_lab.states import LabState

log = logging.getLogger(__name__)

RECORD_AGAIN_SECONDS = 2.0
NO_THREAD = "The host lets this server start no more threads: nothing was done. Try again in a few seconds."


class LabRunner(Protocol):
    """What is asked of `remote_lab.netlab.runner.Runner`; see there."""

    @property
    def provider(self) -> str: ...
    @property
    def holds_labs(self) -> bool: ...
    def admit(self, directory: Path, topology: str) -> list[Finding]: ...
    def boot(
        self,
        place: LabPlace,
        *,
        cancel: threading.Event,
        report_phase: Callable[[str], None],
        report_ready: Callable[[str], None],
    ) -> list[Device]: ...
    def stop(self, place: LabPlace) -> None: ...
    def probe(self, place: LabPlace) -> str | None: ...
    def vanished(self, place: LabPlace) -> str | None: ...
    def dead_devices(self, place: LabPlace, names: Collection[str]) -> list[str]: ...
    def status(self, place: LabPlace) -> str: ...
    def login_key(self, place: LabPlace) -> str | None: ...
    def collect(self, place: LabPlace, devices: Sequence[Device]) -> list[DeviceState]: ...
    def has_memory(self) -> bool: ...
    def orphans(self, known_lab_ids: Collection[str]) -> list[str]: ...
    def end_orphan(self, lab_id: str) -> None: ...


class Job:
    """A boot or a teardown that is under way."""

    def __init__(
        self, place: LabPlace, session_id: str, changed: Callable[[], None], prepare: Callable[[], None] | None = None
    ) -> None:
        """`prepare` is called before a boot: it brings the files, or raises LabBootFailed."""
        self.place = place
        self.prepare = prepare
        self.phase: str | None = None
        self.ready: tuple[str, ...] = ()
        """The devices that are up, while it boots."""
        self._changed = changed
        self.session_id = session_id
        self.log = logging.LoggerAdapter(log, {"session_id": session_id, "topology": place.topology})
        self.cancel = threading.Event()
        self.cancel_reason = ""
        self.done = threading.Event()
        self.devices: list[dict[str, Any]] | None = None
        self.failure: LabBootFailed | None = None
        self.could_not_begin = False
        """There was no thread for it; nothing was done."""

    def check(self) -> None:
        """Raise ServerUnhealthy when it could not begin."""
        if self.could_not_begin:
            raise ServerUnhealthy(NO_THREAD)

    def result(self) -> list[dict[str, Any]]:
        """Wait for a boot and return its devices; LabBootFailed or LabBootCancelled when it brought none."""
        self.done.wait()
        self.check()
        if self.devices is not None:
            return self.devices
        if self.failure is not None:
            raise LabBootFailed(self.failure.phase, self.failure.reason, self.failure.log_tail)
        raise LabBootCancelled(self.cancel_reason)

    def enter(self, phase: str) -> None:
        """A boot has reached this step."""
        self.phase = phase
        self.log.info("Boot: %s", phase)
        self._changed()

    def device_is_ready(self, name: str) -> None:
        """A device of the boot is up; nobody is woken for it, a lab of many would wake everybody for each."""
        self.ready = (*self.ready, name)

    def end(self, reason: str) -> None:
        """Ask the boot to end; the first reason given is the one its waiters are told."""
        if not self.cancel.is_set():
            self.cancel_reason = reason
            self.cancel.set()


class Boots:
    """All jobs of one server."""

    def __init__(
        self,
        database: Database,
        runner: LabRunner,
        workspaces: Workspaces,
        job_ended: Callable[[Job], None],
    ) -> None:
        """`job_ended` is called when a lab is up or has let its slot go, with no transaction open."""
        self._database = database
        self._runner = runner
        self._workspaces = workspaces
        self._job_ended = job_ended
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._threads: list[threading.Thread] = []
        self._stopping: str | None = None

    def place(self, lab: Lab) -> LabPlace:
        """Where the runner finds a lab."""
        return LabPlace(
            lab_id=lab.id,
            slot=lab.slot,
            directory=self._workspaces.directory(lab.id),
            topology=lab.topology,
            log=self._workspaces.log(lab.id),
        )

    def find(self, lab_id: str) -> Job | None:
        """The job that is under way for a lab."""
        with self._lock:
            return self._jobs.get(lab_id)

    def boot(self, transaction: Transaction, lab: Lab, prepare: Callable[[], None] | None = None) -> Job:
        """Boot a lab that this transaction has made `starting`, when it is on disk; for `prepare` see `Job`."""
        return self._claim(transaction, lab, self._run_boot, prepare)

    def take_down(self, transaction: Transaction, lab: Lab, reason: str) -> Job:
        """Make a starting or running lab `stopping` and take it down: end its boot, which then cleans up, or tear down.

        A lab that is stopping already is left to its job; one without a job (it died with an earlier server) gets one.
        """
        labs.move(transaction, lab.id, (LabState.STARTING, LabState.RUNNING), LabState.STOPPING)
        transaction.refresh(lab)
        history.stopping(transaction, lab, reason)
        job = self.find(lab.id)
        if job is None:
            about = {"session_id": lab.session_id, "topology": lab.topology}
            after_commit(transaction, lambda: log.info("Taking the lab down: %s", reason, extra=about))
            return self._claim(transaction, lab, self._run_teardown)
        after_commit(transaction, lambda: job.end(reason))
        return job

    def are_ending(self) -> bool:
        """Whether a boot that begins now is ended at once."""
        with self._lock:
            return self._stopping is not None

    def end_from_now_on(self, reason: str) -> None:
        """End each boot that begins from now on, and begin none ahead; teardowns are done as ever."""
        with self._lock:
            self._stopping = reason

    def end_all(self, reason: str, timeout_seconds: float) -> None:
        """End all boots, now and from now on, and wait for all jobs until the time is over."""
        self.end_from_now_on(reason)
        with self._lock:
            jobs = list(self._jobs.values())
        deadline = time.monotonic() + timeout_seconds
        for job in jobs:
            job.end(reason)
        for job in jobs:
            job.done.wait(max(0.0, deadline - time.monotonic()))
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _claim(
        self,
        transaction: Transaction,
        lab: Lab,
        run: Callable[[Job], None],
        prepare: Callable[[], None] | None = None,
    ) -> Job:
        job = Job(self.place(lab), lab.session_id, self._database.changes.happened, prepare)
        with self._lock:
            self._jobs[lab.id] = job
            if self._stopping is not None:
                job.end(self._stopping)

        def begin() -> None:
            logs.concerns(job.session_id, job.place.topology)
            run(job)

        thread = threading.Thread(target=begin, name=f"{run.__name__}-{lab.id}", daemon=True)
        after_commit(transaction, lambda: self._begin(job, thread, is_boot=run == self._run_boot))
        on_failure(transaction, lambda: self._forget(job))
        return job

    def _begin(self, job: Job, thread: threading.Thread, *, is_boot: bool) -> None:
        try:
            with self._lock:
                self._threads = [one for one in self._threads if one.is_alive()]
                thread.start()
                self._threads.append(thread)
        except (RuntimeError, MemoryError) as error:
            self._give_up(job, error, is_boot=is_boot)

    def _give_up(self, job: Job, why: Exception, *, is_boot: bool) -> None:
        """There is no thread: a boot has failed, with nothing to clean up; a teardown is left to the reaper."""
        what = "boot" if is_boot else "teardown"
        job.log.error("No thread for the %s of lab %s: %s. See the limits of the host", what, job.place.lab_id, why)
        job.could_not_begin = True
        try:
            if is_boot:
                failure = LabBootFailed("server", "the host let this server start no more threads")
                self._record_gone(job, str(failure), failure)
        except Exception:
            job.log.exception("That the lab did not boot could not be recorded; the reaper tries again")
        finally:
            self._forget(job)
            job.done.set()

    def _remember(self, job: Job) -> None:
        with self._lock:
            self._jobs[job.place.lab_id] = job

    def _forget(self, job: Job) -> None:
        """Another one may have its place: a lab that is up on record can be taken down before its boot has ended."""
        with self._lock:
            if self._jobs.get(job.place.lab_id) is job:
                del self._jobs[job.place.lab_id]

    def _run_boot(self, job: Job) -> None:
        place = job.place
        started = time.monotonic()
        job.log.info("Booting in slot %d", place.slot)
        devices: list[dict[str, Any]] | None = None
        failure: str | None = None
        try:
            try:
                if job.prepare is not None:
                    job.prepare()
                booted = self._runner.boot(
                    place, cancel=job.cancel, report_phase=job.enter, report_ready=job.device_is_ready
                )
                devices = [{"name": device.name, "raw": device.raw} for device in booted]
            except LabBootCancelled:
                failure = f"the boot was ended: {job.cancel_reason}"
            except LabBootFailed as error:
                job.failure, failure = error, str(error)
                job.log.error("%s Last lines of its log:\n%s", error, error.log_tail)
            except Exception as error:
                job.log.exception("The boot failed in an unforeseen way")
                failure = f"{type(error).__name__}, see the server's log"
                job.failure = LabBootFailed("server", failure)
                self._stop(job)
            if devices is not None and self._record_running(job, devices):
                job.devices = devices
                job.log.info("The lab is up after %.1f s", time.monotonic() - started)
                return
            if devices is not None:
                failure = self._stop(job)
            self._record_gone(job, failure, job.failure)
        except Exception as error:
            job.log.exception("The end of the boot could not be recorded; the reaper tries again")
            job.failure = LabBootFailed("record", f"{type(error).__name__}, see the server's log")
        finally:
            self._end(job)

    def _run_teardown(self, job: Job) -> None:
        started = time.monotonic()
        try:
            failure = self._stop(job)
            self._record_gone(job, failure, None)
            job.log.info("The lab is down after %.1f s", time.monotonic() - started)
        except Exception:
            job.log.exception("The teardown could not be recorded; the reaper tries again")
        finally:
            self._end(job)

    def _stop(self, job: Job) -> str | None:
        """Tear a lab down; returns what is wrong when something of it is left, because the queue goes on regardless."""
        try:
            self._runner.stop(job.place)
        except LabTeardownFailed as error:
            job.log.error("Teardown: %s", error)
            return str(error)
        except Exception as error:
            job.log.exception("The teardown failed in an unforeseen way")
            return f"{type(error).__name__} in its teardown, see the server's log"
        return None

    def _record_running(self, job: Job, devices: list[dict[str, Any]]) -> bool:
        """Put on record that a lab is up; False when it is not wanted any more.

        While the database takes nothing (its disk is full) the lab waits for it, until somebody ends the boot.
        """
        while True:
            try:
                return self._try_to_record_running(job, devices)
            except DatabaseUnavailable as fault:
                job.log.error("The lab is up, and that cannot be put on record yet: %s", fault)
                if job.cancel.wait(RECORD_AGAIN_SECONDS):
                    raise

    def _try_to_record_running(self, job: Job, devices: list[dict[str, Any]]) -> bool:
        lab_id = job.place.lab_id
        running = {"devices": devices, "running_at": self._database.clock.now()}
        with self._database.write() as transaction:
            moved = labs.move(transaction, lab_id, LabState.STARTING, LabState.RUNNING, **running)
            if moved:
                self._forget(job)
                on_failure(transaction, lambda: self._remember(job))
            return moved

    def _record_gone(self, job: Job, failure: str | None, boot_failure: LabBootFailed | None) -> None:
        """A lab that somebody is taking down has stopped; one that nobody is has failed on its own."""
        place = job.place
        try:
            self._workspaces.discard(place.lab_id, keep_log=boot_failure is not None)
        except OSError as error:
            # A folder holds no slot: the reaper sweeps it.
            log.error("The folder of lab %s cannot be removed now: %s", place.lab_id, error)
        ended: dict[str, Any] = {"ended_at": self._database.clock.now(), "devices": None}
        if failure is not None:
            ended["failure"] = failure
        if boot_failure is not None:
            ended["phase"] = boot_failure.phase
        with self._database.write() as transaction:
            if not labs.move(transaction, place.lab_id, LabState.STOPPING, LabState.STOPPED, **ended):
                labs.move(transaction, place.lab_id, LabState.STARTING, LabState.FAILED, **ended)
            self._forget(job)

    def _end(self, job: Job) -> None:
        self._forget(job)
        job.done.set()
        try:
            self._job_ended(job)
        except Exception:
            job.log.exception("Nobody could be admitted after this lab; the reaper tries again")
