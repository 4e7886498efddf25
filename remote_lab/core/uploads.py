"""Uploads that came with a session: kept for its turn, and for later sessions of the same token that name them.

Files lie in `STATE_DIR/uploads/ID`, what they are is in the table `uploads`. The store is bounded: what no live session
came with goes, the least recently used first, and after a day. An upload for which there is no room is not kept, which
costs its session the boot ahead and nothing else. Whoever the token belongs to has them, nobody else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.orm import Session as Transaction

from remote_lab.callers import TRUSTED, Caller
from remote_lab.config import Config
from remote_lab.core import tokens
from remote_lab.core.boots import LabRunner
from remote_lab.core.db import Database, after_commit
from remote_lab.core.models import KeptUpload, Session, Token
from remote_lab.core.workspace import Upload, UploadedFile, Workspaces
from remote_lab.errors import LabBootFailed, TopologyNotAllowed, UploadNotFound
from remote_lab.states import SessionState

KEPT_SECONDS = 24 * 3600.0
"""How long an upload is kept that no live session came with: a day of nightly jobs and of work."""
KEPT_UPLOADS = 1000
"""Each is a folder."""
KEPT_BYTES = 512 * 2**20
"""Of all uploads; as many as fifty of the largest that are allowed by default, or a hundred thousand ordinary ones."""


@dataclass(frozen=True)
class Brought:
    """What came with a session."""

    upload: Upload | None = None
    """The files, as `receive` has stored them."""
    identity: str | None = None
    """Or the identity of an earlier upload of the same token."""


class Uploads:
    """The uploads of one server; safe to use from many threads. Functions with a transaction work in that."""

    def __init__(self, config: Config, database: Database, runner: LabRunner) -> None:
        self._config = config
        self._database = database
        self._runner = runner
        self._files = Workspaces(config.state_dir, config.max_upload_bytes, config.max_upload_files, folder="uploads")

    def receive(self, topology: UploadedFile, extra_files: Sequence[UploadedFile], caller: Caller) -> Upload:
        """Store an upload that comes; the caller says `done` in any case.

        Raises an UploadError, TopologyNotAllowed.
        """
        upload = self._files.store(topology, extra_files)
        try:
            self._check_allowed(upload.lab_id, upload.topology, caller.is_trusted)
        except BaseException:
            self._files.release(upload)
            raise
        return upload

    def done(self, upload: Upload) -> None:
        """Whoever brought it has their session, or none: what was not kept goes."""
        self._files.release(upload)

    def check_named(self, identity: str, caller: Caller) -> None:
        """Raise UploadNotFound, or TopologyNotAllowed, unless this caller may boot this earlier upload."""
        with self._database.read() as transaction:
            found = self._find(transaction, identity, caller.token_id)
            if found is None:
                raise UploadNotFound(identity)
            upload_id, topology = found.id, found.topology
        self._check_allowed(upload_id, topology, caller.is_trusted)

    def bring(self, transaction: Transaction, session: Session, brought: Brought, now: datetime) -> None:
        """Note what came with a session; UploadNotFound for an identity that is not kept any more."""
        upload = brought.upload
        identity = brought.identity if upload is None else upload.identity
        if identity is None:
            return
        topology = None if upload is None else upload.topology
        kept = self._find(transaction, identity, session.token_id, topology)
        if kept is None and upload is None:
            raise UploadNotFound(identity)
        if kept is None and upload is not None and self._make_room(transaction, upload.size_bytes):
            kept = KeptUpload(
                id=upload.lab_id,
                token_id=session.token_id,
                identity=upload.identity,
                topology=upload.topology,
                size_bytes=upload.size_bytes,
                used_at=now,
            )
            transaction.add(kept)
            after_commit(transaction, lambda: self._files.keep(upload))
        if kept is not None:
            kept.used_at = now
            transaction.flush()
            session.upload_id = kept.id
            transaction.flush()

    def prepare(self, lab_id: str, upload: KeptUpload, labs: Workspaces, is_trusted: bool) -> None:
        """Bring the files of an upload into the folder of a lab that is about to boot; LabBootFailed."""
        try:
            self._check_allowed(upload.id, upload.topology, is_trusted)
            labs.fill(lab_id, self._files.directory(upload.id))
        except (OSError, TopologyNotAllowed) as error:
            raise LabBootFailed("upload", f"its files cannot be had: {error}") from error

    def is_trusted(self, transaction: Transaction, session: Session, now: datetime) -> bool | None:
        """Whether what a session brought may be any program; None when its token opens nothing any more."""
        if session.token_id is None:
            return False
        token = transaction.get_one(Token, session.token_id)
        if tokens.why_unusable(token, now) is not None:
            return None
        return TRUSTED in tokens.caller_of(token).rights

    def sweep(self, now: datetime) -> None:
        """Forget what was not used for too long, and remove the folders that nobody knows."""
        present = self._files.present()
        old = now - timedelta(seconds=KEPT_SECONDS)
        with self._database.read() as transaction:
            known = dict(transaction.execute(select(KeptUpload.id, KeptUpload.used_at)).all())
        if any(used_at < old for used_at in known.values()):
            with self._database.write() as transaction:
                doomed = select(KeptUpload.id).where(KeptUpload.used_at < old, _is_free())
                _forget(transaction, transaction.scalars(doomed).all())
                known = dict(transaction.execute(select(KeptUpload.id, KeptUpload.used_at)).all())
        for upload_id in present:
            if upload_id not in known:
                self._files.discard(upload_id)

    def _find(
        self, transaction: Transaction, identity: str, token_id: int | None, topology: str | None = None
    ) -> KeptUpload | None:
        """The upload of a token with this identity, and file name, used last; restored backups have no files."""
        its = select(KeptUpload).where(
            KeptUpload.identity == identity, KeptUpload.token_id.is_not_distinct_from(token_id)
        )
        if topology is not None:
            its = its.where(KeptUpload.topology == topology)
        found = transaction.scalar(its.order_by(KeptUpload.used_at.desc()).limit(1))
        return found if found is not None and self._files.directory(found.id).is_dir() else None

    def _make_room(self, transaction: Transaction, size_bytes: int) -> bool:
        """Forget what is not needed, until there is room for one more; False when there is none. Folders go later."""
        counted = select(func.count(), func.coalesce(func.sum(KeptUpload.size_bytes), 0))
        count, total = transaction.execute(counted).one()
        free = select(KeptUpload).where(_is_free()).order_by(KeptUpload.used_at)
        for upload in transaction.scalars(free).all() if _is_full(count, total + size_bytes) else ():
            _forget(transaction, [upload.id])
            count, total = count - 1, total - upload.size_bytes
            if not _is_full(count, total + size_bytes):
                break
        transaction.flush()
        return not _is_full(count, total + size_bytes)

    def _check_allowed(self, upload_id: str, topology: str, is_trusted: bool) -> None:
        if is_trusted or self._config.trust_uploads:
            return
        findings = self._runner.admit(self._files.directory(upload_id), topology)
        if findings:
            raise TopologyNotAllowed(topology, [asdict(one) for one in findings])


def _forget(transaction: Transaction, ids: Sequence[str]) -> None:
    transaction.execute(update(Session).where(Session.upload_id.in_(ids)).values(upload_id=None))
    transaction.execute(delete(KeptUpload).where(KeptUpload.id.in_(ids)))


def _is_free() -> ColumnElement[bool]:
    """Whether no live session came with an upload."""
    needed = select(Session.upload_id).where(Session.state != SessionState.ENDED, Session.upload_id.is_not(None))
    return KeptUpload.id.not_in(needed)


def _is_full(count: int, size_bytes: int) -> bool:
    return count >= KEPT_UPLOADS or size_bytes > KEPT_BYTES
