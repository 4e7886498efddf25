"""What each token may have at most, so that one of many users leaves something to the others.

A server that runs open knows one caller only, whom no limit of these is for.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session as Transaction

from remote_lab.callers import Caller
from remote_lab.config import Config
from remote_lab.core.models import Lab, Session
from remote_lab.core.throttle import Budget
from remote_lab.errors import LimitExceeded
from remote_lab.states import SessionState

HOUR_SECONDS = 3600.0
WAITING_RETRY_SECONDS = 30
_WAITING = select(func.count()).where(Session.state == SessionState.WAITING, Session.token_id == bindparam("token_id"))
"""Built once, see `sessions.py`."""


class UploadLimits:
    """Bytes and files that each token uploads in an hour; forgotten when the server ends."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._bytes = Budget(config.token_upload_bytes, HOUR_SECONDS)
        self._files = Budget(config.token_upload_files, HOUR_SECONDS)

    def take_bytes(self, caller: Caller, announced_bytes: int | None) -> None:
        """Before an upload is read; one that does not say how long it is counts as the longest. LimitExceeded."""
        amount = self._config.max_upload_bytes if announced_bytes is None else announced_bytes
        if caller.token_id is not None and (seconds := self._bytes.spend(caller.token_id, amount)):
            limit = self._config.token_upload_bytes
            raise LimitExceeded(
                "has uploaded too many bytes in an hour", "REMOTE_LAB_TOKEN_UPLOAD_BYTES", limit, seconds
            )

    def take_files(self, caller: Caller, files: int) -> None:
        """Before the files of an upload are stored. LimitExceeded."""
        if caller.token_id is not None and (seconds := self._files.spend(caller.token_id, files)):
            limit = self._config.token_upload_files
            raise LimitExceeded(
                "has uploaded too many files in an hour", "REMOTE_LAB_TOKEN_UPLOAD_FILES", limit, seconds
            )


def check_waiting(transaction: Transaction, caller: Caller, config: Config) -> None:
    """Before a token gets one more place in the queue. LimitExceeded."""
    if caller.token_id is None:
        return
    if (transaction.scalar(_WAITING, {"token_id": caller.token_id}) or 0) >= config.token_waiting:
        raise LimitExceeded(
            "has too many sessions in the queue",
            "REMOTE_LAB_TOKEN_WAITING",
            config.token_waiting,
            WAITING_RETRY_SECONDS,
        )


def check_boots(transaction: Transaction, session: Session, config: Config, now: datetime) -> None:
    """Before a lab is booted for a session; counted by what is on record, so that a restart forgives nothing.

    Raises LimitExceeded.
    """
    if session.token_id is None:
        return
    began = now - timedelta(seconds=HOUR_SECONDS)
    its = (
        select(Lab.created_at)
        .join(Session, Session.id == Lab.session_id)
        .where(Session.token_id == session.token_id, Lab.created_at > began)
    )
    # The boot that has to be an hour ago before there is room for one more.
    decisive = transaction.scalar(its.order_by(Lab.created_at.desc()).offset(config.token_boots - 1).limit(1))
    if decisive is not None:
        seconds = max(1, math.ceil((decisive - began).total_seconds()))
        raise LimitExceeded(
            "has booted too many labs in an hour", "REMOTE_LAB_TOKEN_BOOTS", config.token_boots, seconds
        )
