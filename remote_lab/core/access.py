"""Who may call: the door of the server. Tokens are recognised here, wrong ones slowed down, uses remembered.

A good token is let in whatever came before it from the same address: many clients may share one, and nobody guesses
256 bits, so slowing down keeps the log and the server from being flooded, not the tokens from being found.

Good tokens are remembered until somebody, in whatever process, changes one: a poll asks no database who polls.
"""

from __future__ import annotations

import hmac
import logging
import sqlite3
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NoReturn

from remote_lab.callers import ADMIN, Caller
from remote_lab.config import AUTO, TOKEN, Config
from remote_lab.core import tokens
from remote_lab.core.db import Database
from remote_lab.core.models import Token
from remote_lab.core.throttle import Tally
from remote_lab.core.witness import Written
from remote_lab.errors import TokenInvalid, TooManyWrongTokens

log = logging.getLogger(__name__)

WRONG_SECONDS = 60.0
WRONG_PER_ADDRESS = 10
WRONG_IN_ALL = 300
ADDRESSES_REMEMBERED = 4096
USE_WRITTEN_SECONDS = 60.0
SHOWN_OF_DIGEST = 8
OPERATOR = Caller("operator", None, frozenset({ADMIN}))
"""Commands on this host, which prove that they may read the state folder."""


@dataclass(frozen=True)
class Entry:
    """How a server lets people in."""

    by_token: bool = False
    """Otherwise everybody may do everything."""
    operator_digest: str | None = field(default=None, repr=False)
    """Of the token that commands on this host use."""


@dataclass(frozen=True)
class Known:
    """A token that was good when it was looked up."""

    token_id: int
    caller: Caller
    expires_at: datetime | None


def asks_for_tokens(config: Config, is_loopback: bool, has_tokens: bool) -> bool:
    """Whether a server with these settings asks for tokens.

    REMOTE_LAB_AUTH=auto: on any address but loopback, and there as well once a token was made, even if that is revoked
    or has expired: a server must not open by itself because time passes.
    """
    return config.auth == TOKEN or (config.auth == AUTO and (has_tokens or not is_loopback))


class Access:
    """The door of one server; safe to use from many threads."""

    def __init__(self, database: Database, entry: Entry | None = None) -> None:
        self.entry = entry or Entry()
        self._database = database
        self._wrong = Tally(WRONG_PER_ADDRESS, WRONG_SECONDS, ADDRESSES_REMEMBERED)
        self._wrong_in_all = Tally(WRONG_IN_ALL, WRONG_SECONDS, 1)
        self._announced = Tally(1, WRONG_SECONDS, ADDRESSES_REMEMBERED)
        self._lock = threading.Lock()
        self._uses: dict[int, datetime] = {}
        self._written: dict[int, float] = {}
        self._known: dict[str, Known] = {}
        """By digest; no more than there are tokens on record."""
        self._epoch = 0
        """Grows with every change of a token."""
        self._has_changed = False
        database.follow(self)

    def recognise(self, token: str, address: str) -> Caller:
        """Who calls with this token from this address; TokenInvalid, TooManyWrongTokens."""
        sha256 = tokens.digest(token)
        self._database.look()
        known = self._remembered(sha256)
        return known if known is not None else self._look_up(sha256, address)

    def known(self, token: str) -> Caller | None:
        """Who calls with a token, without waiting for anything; None when `recognise` has to."""
        return self._remembered(tokens.digest(token)) if self._database.is_current() else None

    def _remembered(self, sha256: str) -> Caller | None:
        if hmac.compare_digest(sha256, self.entry.operator_digest or ""):
            return OPERATOR
        now = datetime.now(UTC)
        with self._lock:
            known = self._known.get(sha256)
            if known is None or (known.expires_at is not None and known.expires_at <= now):
                return None
            self._uses[known.token_id] = now
        return known.caller

    def _look_up(self, sha256: str, address: str) -> Caller:
        now = datetime.now(UTC)
        with self._lock:
            epoch = self._epoch
        with self._database.read() as transaction:
            found = tokens.find(transaction, sha256)
            if found is None:
                self._refuse(sha256, "The token is not valid.", address)
            if (why := tokens.why_unusable(found, now)) is not None:
                self._refuse(sha256, why, address)
            known = _known(found)
        with self._lock:
            self._uses[known.token_id] = now
            if self._epoch == epoch:
                self._known[sha256] = known
        return known.caller

    def prepare(self, _connection: sqlite3.Connection, written: Written) -> None:
        """See `remote_lab.core.witness.Follower`."""
        self._has_changed = written.has_tokens

    def publish(self) -> None:
        """See `remote_lab.core.witness.Follower`."""
        if self._has_changed:
            self._forget()

    def reload(self, _connection: sqlite3.Connection) -> None:
        """See `remote_lab.core.witness.Follower`."""
        self._forget()

    def wake(self) -> None:
        """Nobody waits for a token."""

    def _forget(self) -> None:
        with self._lock:
            self._epoch += 1
            self._known.clear()

    def write_uses(self, at_once: bool = False) -> None:
        """Put on record when tokens were used last, of each at most once a minute unless `at_once`."""
        now = time.monotonic()
        with self._lock:
            due = {
                token_id: moment
                for token_id, moment in self._uses.items()
                if at_once or now - self._written.get(token_id, -USE_WRITTEN_SECONDS) >= USE_WRITTEN_SECONDS
            }
        if not due:
            return
        with self._database.write() as transaction:
            tokens.note_uses(transaction, due)
        with self._lock:
            self._written |= dict.fromkeys(due, now)
            self._uses = {one: moment for one, moment in self._uses.items() if due.get(one) != moment}

    def _refuse(self, sha256: str, why: str, address: str) -> NoReturn:
        fingerprint = sha256[:SHOWN_OF_DIGEST]
        wait_seconds = max(self._wrong.count(address), self._wrong_in_all.count(None))
        if not wait_seconds:
            log.warning("Wrong token from %s (its SHA-256 begins with %s): %s", address, fingerprint, why)
            raise TokenInvalid(why)
        if self._announced.count(address) == 0:
            log.warning("Too many wrong tokens from %s, or in all: answered 429, for %d s", address, wait_seconds)
        raise TooManyWrongTokens(wait_seconds)


def _known(token: Token) -> Known:
    return Known(token.id, tokens.caller_of(token), token.expires_at)
