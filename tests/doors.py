"""Real servers that ask for tokens."""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from harness import STANDIN, Server

from remote_lab.callers import ADMIN, USE
from remote_lab.core import tokens
from remote_lab.core.db import Database
from remote_lab.core.schema import bring_up_to_date

PROXY = "127.0.0.1"
"""The tests themselves, so that each may come from an address of its own."""


class Door(Server):
    """A server with a token for the test itself, which may see and end everything."""

    def __init__(self, state_dir: Path, **settings: object) -> None:
        usual = {"PROVIDER": "clab", "NETLAB": STANDIN, "PROXIES": PROXY}
        super().__init__(state_dir, **{**usual, **settings})
        state_dir.mkdir(parents=True, mode=0o700, exist_ok=True)
        self.database = Database(f"sqlite:///{state_dir / 'remote-lab.sqlite3'}")
        bring_up_to_date(self.database)
        self.token = self.make("operator-of-tests", USE, ADMIN)

    def make(self, name: str, *rights: str, expires_in: timedelta | None = None) -> str:
        """A new token."""
        now = datetime.now(UTC)
        with self.database.write() as transaction:
            return tokens.create(
                transaction, name, rights or (USE,), None if expires_in is None else now + expires_in, now
            )

    def revoke(self, name: str) -> None:
        """From now on it opens nothing."""
        with self.database.write() as transaction:
            tokens.revoke(transaction, name, datetime.now(UTC))

    def record(self, name: str) -> tokens.TokenRecord:
        """What is kept of a token."""
        with self.database.read() as transaction:
            return next(one for one in tokens.records(transaction, datetime.now(UTC)) if one.name == name)

    def open_for(self, token: str, **wish: Any) -> str:
        """A session that belongs to a token."""
        response = self.call("POST", "/session", token=token, json=wish)
        assert response.status_code == 201, response.text
        return str(response.json()["session_id"])


def wrong_token(number: int = 0) -> str:
    """What looks like a token and is none."""
    return f"rlab_{hashlib.sha256(f'{number} {time.monotonic()}'.encode()).hexdigest()}"
