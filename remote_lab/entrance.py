"""How the server of a state folder lets people in: open or by token, its first token, and the one of its operator."""

from __future__ import annotations

import logging
import os
import socket
import stat
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from remote_lab.callers import ADMIN, USE
from remote_lab.config import AUTO, Config
from remote_lab.core import tokens
from remote_lab.core.access import Entry, asks_for_tokens
from remote_lab.core.db import Database
from remote_lab.core.models import Token
from remote_lab.errors import DatabaseUnavailable, NoTokenYet

log = logging.getLogger(__name__)

FIRST_NAME = "first"
FIRST_DAYS = 90
OPERATOR_FILE = "operator.token"


class Entrance:
    """Decided before the host is touched, opened when the database is there."""

    def __init__(self, config: Config, address: tuple[str, int]) -> None:
        """`address` is what the server is bound to. NoTokenYet when nobody would get in."""
        self._config = config
        self._host, self._port = address
        self.is_loopback = ip_address(self._host.partition("%")[0]).is_loopback
        has_tokens = _has_tokens(config)
        self.by_token = asks_for_tokens(config, self.is_loopback, has_tokens)
        if self.by_token and not has_tokens and not _prints_for_people():
            raise NoTokenYet(f"{self._host}:{self._port}")

    def open(self, database: Database) -> Entry:
        """Make what commands on this host prove themselves by, and the first token when there is none."""
        operator = tokens.new_token()
        _write_secret(self._config.state_dir / OPERATOR_FILE, operator)
        if self.by_token:
            self._say_first_token(database)
        self._say(database)
        return Entry(self.by_token, tokens.digest(operator))

    def _say(self, database: Database) -> None:
        setting = f"REMOTE_LAB_AUTH={self._config.auth}"
        if self.by_token:
            with database.read() as transaction:
                found = tokens.records(transaction, datetime.now(UTC))
            usable = sum(one.state == "usable" for one in found)
            log.info("Callers need a token (%s), %d can be used", setting, usable)
            if not usable:
                log.warning("No token can be used: nobody gets in before `remote-lab token create NAME`")
        elif self.is_loopback:
            reason = f"{setting}, and no token was ever made" if self._config.auth == AUTO else setting
            log.info("Open to everybody on this host (%s)", reason)
        else:
            log.warning("Open to everybody who reaches %s:%d (%s)", self._host, self._port, setting)

    def _say_first_token(self, database: Database) -> None:
        now = datetime.now(UTC)
        with database.write() as transaction:
            if transaction.scalar(select(Token.id).limit(1)) is not None:
                return
            token = tokens.create(transaction, FIRST_NAME, (USE, ADMIN), now + timedelta(days=FIRST_DAYS), now)
        sys.stdout.write(_WELCOME.format(url=self._url(), token=token, name=FIRST_NAME, days=FIRST_DAYS))
        sys.stdout.flush()

    def _url(self) -> str:
        host = socket.gethostname() if ip_address(self._host).is_unspecified else self._host
        return f"http://[{host}]:{self._port}" if ":" in host else f"http://{host}:{self._port}"


_WELCOME = """
Nobody can use this server without a token. This is the first one, and it is not shown again:

  export REMOTE_LAB_URL={url} REMOTE_LAB_TOKEN={token}

It is called {name!r}, may use labs, see and end everybody's sessions, and is good for {days} days. Others, which may
less, on this host:

  remote-lab token create NAME

"""


def close_entrance(config: Config) -> None:
    """The server has ended."""
    (config.state_dir / OPERATOR_FILE).unlink(missing_ok=True)


def operator_token(state_dir: Path) -> str | None:
    """What a command proves itself by to the server of a state folder; None when this user may not have it."""
    try:
        return (state_dir / OPERATOR_FILE).read_text().strip() or None
    except OSError:
        return None


def _has_tokens(config: Config) -> bool:
    """Whether a token was ever made; a database that cannot say is looked at by the start itself."""
    database = Database(config.database)
    if not database.path.exists():
        return False
    try:
        with database.read() as transaction:
            return transaction.scalar(select(Token.id).limit(1)) is not None
    except (SQLAlchemyError, DatabaseUnavailable):
        return False
    finally:
        database.dispose()


def _prints_for_people() -> bool:
    """Whether what is printed is seen now, instead of being kept in the journal or in a log file."""
    if sys.stdout.isatty():
        return True
    try:
        output = os.fstat(sys.stdout.fileno())
    except (OSError, ValueError):
        return False
    is_journal = os.environ.get("JOURNAL_STREAM") == f"{output.st_dev}:{output.st_ino}"
    return stat.S_ISFIFO(output.st_mode) and not is_journal


def _write_secret(path: Path, text: str) -> None:
    """Only the owner may read it, from its first moment; a file that somebody put there is not written to."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(f"{text}\n")
