"""Boots ahead: the labs of those who wait, in the places that are free. Runs after each admission, in its transaction.

A lab that is booted ahead is a lab like any other, of a session that waits and without references. It is tried once:
when it fails, or dies, the acquire boots it again. What it is worth to an acquire is in `labs.decide`.
"""

from __future__ import annotations

import logging
import uuid
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session as Transaction

from remote_lab.config import Config
from remote_lab.core import labs, limits
from remote_lab.core.boots import Boots, LabRunner
from remote_lab.core.db import after_commit
from remote_lab.core.models import KeptUpload, Lab, Session
from remote_lab.core.uploads import Uploads
from remote_lab.core.workspace import Workspaces
from remote_lab.errors import LimitExceeded
from remote_lab.states import LIVE_LAB_STATES, LabState, SessionState

log = logging.getLogger(__name__)


class BootsAhead:
    """The boots ahead of one server."""

    def __init__(
        self, config: Config, runner: LabRunner, workspaces: Workspaces, boots: Boots, uploads: Uploads
    ) -> None:
        self._config = config
        self._runner = runner
        self._workspaces = workspaces
        self._boots = boots
        self._uploads = uploads

    def begin(self, transaction: Transaction, now: datetime) -> None:
        """Boot the labs of those who are next, as far as places and memory go; after everybody was admitted who can be.

        Those who are further behind get none, also when nobody in front of them brought one: a lab would lie there for
        hours. Nor does who will find theirs warm. While boots are ended nobody does: it would be their only try.
        """
        if not self._config.ahead or self._boots.are_ending():
            return
        places = self._free_places(transaction)
        if not places:
            return
        nearest = select(Session).where(Session.state == SessionState.WAITING).order_by(Session.ticket)
        for session in transaction.scalars(nearest.limit(self._config.slots + self._config.ahead)).all():
            upload = None if session.upload_id is None else transaction.get_one(KeptUpload, session.upload_id)
            if upload is None or _has_had_a_lab(transaction, session) or _is_warm(transaction, upload.identity):
                continue
            if not self._runner.has_memory():
                log.info("No lab is booted ahead: the host has not enough memory for one more")
                return
            if self._boot(transaction, session, upload, places[0], now):
                places.pop(0)
            if not places:
                return

    def _boot(self, transaction: Transaction, session: Session, upload: KeptUpload, place: int, now: datetime) -> bool:
        is_trusted = self._uploads.is_trusted(transaction, session, now)
        try:
            limits.check_boots(transaction, session, self._config, now)
        except LimitExceeded:
            return False
        if is_trusted is None:
            return False
        lab_id = str(uuid.uuid4())
        lab = labs.claim_ahead(transaction, lab_id, session, place, upload.identity, upload.topology, now)
        about = {"session_id": session.id, "topology": upload.topology}
        after_commit(transaction, lambda: log.info("Its lab boots ahead in place %d", place, extra=about))
        self._boots.boot(transaction, lab, lambda: self._uploads.prepare(lab_id, upload, self._workspaces, is_trusted))
        return True

    def _free_places(self, transaction: Transaction) -> list[int]:
        """The places with neither an active session nor a live lab, while all slots are in use."""
        active = transaction.scalars(select(Session.slot).where(Session.state == SessionState.ACTIVE)).all()
        if len(active) < self._config.slots:
            return []
        live = transaction.scalars(select(Lab.slot).where(Lab.state.in_(LIVE_LAB_STATES))).all()
        return [
            place for place in range(1, self._config.slots + self._config.ahead + 1) if place not in {*active, *live}
        ]


def _has_had_a_lab(transaction: Transaction, session: Session) -> bool:
    """What is on record says it, so that a restart tries nothing twice."""
    return transaction.scalar(select(Lab.id).where(Lab.session_id == session.id).limit(1)) is not None


def _is_warm(transaction: Transaction, identity: str) -> bool:
    kept = select(Lab.id).join(Session, Session.id == Lab.session_id)
    kept = kept.where(Lab.state == LabState.RUNNING, Session.state == SessionState.ENDED, Lab.identity == identity)
    return transaction.scalar(kept.limit(1)) is not None
