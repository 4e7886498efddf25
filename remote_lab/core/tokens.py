"""Tokens on record: made, found, revoked. Every function works in the transaction it is given and commits nothing.

A token is 256 random bits behind a prefix that secret scanners can look for; on record is its SHA-256 alone. That
needs neither salt nor a slow hash: nobody can try out 2^256. Who is let in is decided in `access.py`.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session as Transaction

from remote_lab.callers import RIGHTS, TRUSTED, USE, Caller
from remote_lab.core.models import Session, Token
from remote_lab.errors import TokenNameTaken, TokenUnknown
from remote_lab.states import SessionState

PREFIX = "rlab_"
TOKEN_BYTES = 32
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
"""What a token may be called: it stands in tables, log lines and sentences."""


@dataclass(frozen=True)
class TokenRecord:
    """A token as it is on record."""

    name: str
    rights: list[str]
    state: str
    """usable, expired or revoked."""
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    live_sessions: int
    """How many of its sessions wait or are active."""


def new_token() -> str:
    """A token that nobody had before."""
    return PREFIX + secrets.token_hex(TOKEN_BYTES)


def digest(token: str) -> str:
    """What a token is known by."""
    return hashlib.sha256(token.encode()).hexdigest()


def create(
    transaction: Transaction, name: str, rights: Iterable[str], expires_at: datetime | None, now: datetime
) -> str:
    """Put a new token on record and return it: nobody can be told it again. TokenNameTaken.

    Who is trusted may use labs as well; no other right includes another.
    """
    if transaction.scalar(select(Token.id).where(Token.name == name)) is not None:
        raise TokenNameTaken(name)
    wanted = set(rights)
    if TRUSTED in wanted:
        wanted.add(USE)
    token = new_token()
    transaction.add(
        Token(
            name=name,
            sha256=digest(token),
            rights=" ".join(right for right in RIGHTS if right in wanted),
            created_at=now,
            expires_at=expires_at,
        )
    )
    transaction.flush()
    return token


def revoke(transaction: Transaction, name: str, now: datetime) -> TokenRecord:
    """Let a token open nothing from now on; one that was revoked stays so. TokenUnknown."""
    found = transaction.scalar(select(Token).where(Token.name == name))
    if found is None:
        raise TokenUnknown(name)
    if found.revoked_at is None:
        found.revoked_at = now
        transaction.flush()
    return _record(found, now, _live_sessions(transaction).get(found.id, 0))


def find(transaction: Transaction, sha256: str) -> Token | None:
    """The token of this digest, whether it may still be used or not."""
    return transaction.scalar(select(Token).where(Token.sha256 == sha256))


def why_unusable(token: Token, now: datetime) -> str | None:
    """Why a token opens nothing any more, as a sentence for who has it; None while it does."""
    if token.revoked_at is not None:
        return f"Token {token.name!r} was revoked at {token.revoked_at:%Y-%m-%d %H:%M:%S} UTC."
    if token.expires_at is not None and token.expires_at <= now:
        return f"Token {token.name!r} expired at {token.expires_at:%Y-%m-%d %H:%M:%S} UTC."
    return None


def caller_of(token: Token) -> Caller:
    """Who calls with a token."""
    return Caller(token.name, token.id, frozenset(token.rights.split()))


def records(transaction: Transaction, now: datetime) -> list[TokenRecord]:
    """All tokens there ever were, in the order of their making."""
    live = _live_sessions(transaction)
    return [
        _record(one, now, live.get(one.id, 0)) for one in transaction.scalars(select(Token).order_by(Token.id)).all()
    ]


def note_uses(transaction: Transaction, uses: Mapping[int, datetime]) -> None:
    """Put on record when tokens were used last."""
    for token_id, moment in uses.items():
        transaction.execute(update(Token).where(Token.id == token_id).values(last_used_at=moment))


_IS_LIVE = Session.state.in_((SessionState.WAITING, SessionState.ACTIVE))


def _live_sessions(transaction: Transaction) -> dict[int | None, int]:
    counted = select(Session.token_id, func.count()).where(_IS_LIVE).group_by(Session.token_id)
    return dict(transaction.execute(counted).all())


def _record(token: Token, now: datetime, live_sessions: int) -> TokenRecord:
    unusable = "revoked" if token.revoked_at is not None else "expired"
    return TokenRecord(
        name=token.name,
        rights=token.rights.split(),
        state="usable" if why_unusable(token, now) is None else unusable,
        created_at=token.created_at,
        expires_at=token.expires_at,
        last_used_at=token.last_used_at,
        revoked_at=token.revoked_at,
        live_sessions=live_sessions,
    )
