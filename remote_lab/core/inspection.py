"""What the owner of a session can see of their lab, without changing it; what they can do with it is in `desk.py`."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from sqlalchemy.orm import Session as Transaction

from remote_lab.config import Config
from remote_lab.core import estimates, labs, sessions
from remote_lab.core.acquires import PendingAcquires
from remote_lab.core.boots import Boots, LabRunner
from remote_lab.core.db import Database
from remote_lab.core.models import Lab
from remote_lab.core.statuses import Statuses
from remote_lab.core.views import BootLog, Devices, DeviceStates, LabView
from remote_lab.core.waiting import NO_ROOM_SECONDS, Room
from remote_lab.core.workspace import Workspaces
from remote_lab.errors import LabNotFound, SshKeyNotFound, TooManyHeldRequests
from remote_lab.netlab.runner import Device, read_log_tail
from remote_lab.states import LabState


class LabInspection:
    """The looks at labs; safe to call from many threads."""

    def __init__(
        self,
        config: Config,
        database: Database,
        runner: LabRunner,
        workspaces: Workspaces,
        boots: Boots,
        pending: PendingAcquires,
    ) -> None:
        self.database = database
        self.runner = runner
        self.workspaces = workspaces
        self.boots = boots
        self._pending = pending
        self._statuses = Statuses()
        # With acquires and the slow clients of patience.py that is 7/8 of the threads: what takes no time finds one.
        self.waits = Room(max(1, config.threads // 8))
        self.streams = Room(max(1, config.threads // 8))
        self.collectors = Room(max(1, config.threads // 8))

    def lab(self, session_id: str, *, asks_netlab: bool = True) -> LabView:
        """The session's lab, also when it has none; SessionNotFound or SessionWaiting.

        Without `asks_netlab` its word on a running lab is that of a moment ago, if there is one: to ask is a process
        in the lab, for which nobody who waits for its devices has to wait as well.
        """
        # Before what is on record: the boot of an acquire that is decided is there.
        is_deciding = self._pending.is_deciding(session_id)
        with self.database.read() as transaction:
            session = sessions.get_active(transaction, session_id)
            if labs.before_session(transaction, session) is not None:
                # What it was is the matter of whoever had it.
                return LabView(running=False, state=LabState.STOPPING)
            lab = labs.last_of_session(transaction, session)
            if lab is None or lab.state == LabState.STOPPED:
                return LabView(running=False)
            if lab.state == LabState.FAILED and lab.is_unused and is_deciding:
                # A boot ahead that failed is no answer to the acquire that is about to boot it again.
                return LabView(running=False)
            ref_count = labs.ref_count(transaction, lab)
            eta_seconds = self._boot_eta(transaction, lab)
        state = LabState(lab.state)
        if state == LabState.RUNNING:
            devices, names = lab.devices or [], [device["name"] for device in lab.devices or []]
            says: str | None
            if asks_netlab:
                says = self._statuses.of(lab.id, lambda: self.runner.status(self.boots.place(lab)))
            else:
                says = self._statuses.last(lab.id)
            return LabView(True, lab.topology, ref_count, devices, says, state, identity=lab.identity, ready=names)
        job = self.boots.find(lab.id)
        return LabView(
            running=False,
            topology=lab.topology,
            identity=lab.identity,
            ref_count=ref_count,
            state=state,
            phase=job.phase if job is not None else lab.phase,
            failure=lab.failure,
            log_tail=None if state == LabState.STOPPING else read_log_tail(self.workspaces.log(lab.id)),
            eta_seconds=eta_seconds,
            seconds=self._seconds_since(lab.created_at) if state == LabState.STARTING else None,
            ready=list(job.ready) if job is not None and state == LabState.STARTING else [],
        )

    def wait_for_lab(self, session_id: str, seconds: float) -> LabView:
        """The same when its state or phase has changed, or the seconds are over, whichever is first; asks no netlab.

        At once when it runs or has failed: who asks may have seen it boot a moment ago, and waits for that. At once as
        well, with `retry_after_seconds`, when there is no room to hold the request.
        """
        try:
            with self.waits.place():
                first = self._progress(session_id)
                if first[1] not in (LabState.RUNNING, LabState.FAILED):
                    self.database.changes.watch(lambda: self._progress(session_id), lambda now: now != first, seconds)
        except TooManyHeldRequests:
            return replace(self.lab(session_id, asks_netlab=False), retry_after_seconds=NO_ROOM_SECONDS)
        return self.lab(session_id, asks_netlab=False)

    def boot_log(self, session_id: str) -> BootLog:
        """The boot log of the session's lab, of the failed one when that was the last; LabNotFound."""
        with self.database.read() as transaction:
            lab = labs.last_of_session(transaction, sessions.get_active(transaction, session_id))
        if lab is None or not self.workspaces.log(lab.id).exists():
            raise LabNotFound
        return BootLog(lab.id, self.workspaces.log(lab.id))

    def boot_progress(self, lab_id: str) -> tuple[str, str | None]:
        """The state of a lab, and the phase of its boot while that is under way."""
        with self.database.read() as transaction:
            lab = transaction.get(Lab, lab_id)
        if lab is None or lab.state != LabState.STARTING:
            return "gone" if lab is None else lab.state, None
        job = self.boots.find(lab_id)
        return lab.state, (job.phase if job is not None else None) or "claimed"

    def _progress(self, session_id: str) -> tuple[str, str | None, str | None]:
        with self.database.read() as transaction:
            session = sessions.get_active(transaction, session_id)
            lab = labs.before_session(transaction, session) or labs.last_of_session(transaction, session)
        if lab is None:
            return "", None, None
        job = self.boots.find(lab.id)
        return lab.id, lab.state, job.phase if job is not None else None

    def _boot_eta(self, transaction: Transaction, lab: Lab) -> float | None:
        if lab.state != LabState.STARTING:
            return None
        usual = estimates.boot_seconds(transaction, lab.identity)
        if usual is None:
            return None
        return max(0.0, usual - self._seconds_since(lab.created_at))

    def devices(self, session_id: str) -> Devices:
        """The devices of the session's running lab; LabNotFound when it has none."""
        return self._running(session_id).devices or []

    def login_key(self, session_id: str) -> str:
        """The private key that logs in to the devices of the session's running lab, as OpenSSH writes it.

        LabNotFound when it has none, SshKeyNotFound when the lab has no key of its own.
        """
        key = self.runner.login_key(self.boots.place(self._running(session_id)))
        if key is None:
            raise SshKeyNotFound(self.runner.provider)
        return key

    def device_state(self, session_id: str) -> DeviceStates:
        """What the devices of the session's running lab say of themselves: configurations and show commands.

        LabNotFound when it has none, TooManyHeldRequests; a device or command that fails is no error.
        """
        lab = self._running(session_id)
        with self.collectors.place():
            devices = [Device(device["name"], device["raw"]) for device in lab.devices or []]
            return self.runner.collect(self.boots.place(lab), devices)

    def _running(self, session_id: str) -> Lab:
        with self.database.read() as transaction:
            lab = labs.of_session(transaction, sessions.get_active(transaction, session_id))
            if lab is None or lab.state != LabState.RUNNING:
                raise LabNotFound
            transaction.expunge(lab)
            return lab

    def running_labs(self) -> list[str]:
        """The topologies of all labs that are up."""
        with self.database.read() as transaction:
            return [lab.topology for lab in labs.live(transaction) if lab.state == LabState.RUNNING]

    def _seconds_since(self, moment: datetime) -> float:
        return max(0.0, (self.database.clock.now() - moment).total_seconds())
