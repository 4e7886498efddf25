"""Who may call and how much: the policy of the door, what is counted, and for how long."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta

import pytest
from fakes import wait_until
from sqlalchemy import Engine, event, text
from sqlalchemy.orm import Session as Transaction

from remote_lab.config import Config
from remote_lab.core import tokens
from remote_lab.core.access import asks_for_tokens
from remote_lab.core.db import Database
from remote_lab.core.manager import LabManager
from remote_lab.core.models import Token
from remote_lab.core.throttle import Budget, Tally
from remote_lab.errors import TokenInvalid

ADDRESS = "192.0.2.1"


@pytest.mark.parametrize(
    ("auth", "is_loopback", "has_tokens", "expected"),
    [
        ("auto", True, False, False),
        ("auto", True, True, True),
        ("auto", False, False, True),
        ("auto", False, True, True),
        ("token", True, False, True),
        ("open", False, True, False),
    ],
)
def test_who_is_asked_for_a_token(auth: str, is_loopback: bool, has_tokens: bool, expected: bool) -> None:
    """Open without being told to is a server on loopback for which no token was ever made."""
    assert asks_for_tokens(Config(auth=auth), is_loopback, has_tokens) is expected


def test_a_tally_forgets_when_its_window_is_over() -> None:
    """It says how long that takes."""
    now = [100.0]
    tally = Tally(2, 60.0, 10, lambda: now[0])
    assert [tally.count("a") for _ in range(4)] == [0, 0, 60, 60]
    assert tally.count("b") == 0
    now[0] += 45
    assert tally.count("a") == 15
    now[0] += 15
    assert tally.count("a") == 0


def test_a_tally_keeps_a_bounded_number_of_keys() -> None:
    """Those that were not counted for longest go, so that a flood of addresses fills no memory."""
    tally = Tally(1, 60.0, 2, lambda: 0.0)
    assert tally.count("first") == 0
    assert tally.count("second") == 0
    assert tally.count("third") == 0
    assert tally.count("first") == 0, "forgotten"
    assert tally.count("third") == 60, "remembered"


def test_a_budget_says_when_there_is_room_again() -> None:
    """When what is in the way is an hour old, and not before."""
    now = [0.0]
    budget = Budget(100, 3600.0, lambda: now[0])
    assert budget.spend("a", 60) == 0
    now[0] = 600.0
    assert budget.spend("a", 40) == 0
    wait_seconds = budget.spend("a", 30)
    assert 2900 < wait_seconds <= 3060
    assert budget.spend("b", 100) == 0
    now[0] += wait_seconds
    assert budget.spend("a", 30) == 0


def test_what_is_larger_than_the_budget_fits_once() -> None:
    """A limit below the size of a single upload would otherwise refuse it for ever."""
    budget = Budget(10, 3600.0, lambda: 0.0)
    assert budget.spend("a", 50) == 0
    assert budget.spend("a", 1) > 0


def make_token(database: Database, name: str, expires_at: datetime | None = None) -> str:
    with database.write() as transaction:
        return tokens.create(transaction, name, ["use"], expires_at, datetime.now(UTC))


def revoke(database: Database, name: str) -> None:
    with database.write() as transaction:
        tokens.revoke(transaction, name, datetime.now(UTC))


@pytest.fixture
def other(config: Config, manager: LabManager) -> Database:
    """The database as another process has it."""
    return Database(config.database)


def test_a_token_is_looked_up_once(manager: LabManager) -> None:
    """However often it is used, whatever else is written, and its use is on record all the same."""
    token = make_token(manager.database, "ci")
    assert manager.access.known(token) is None
    caller = manager.access.recognise(token, ADDRESS)
    looked_up: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if "sha256 = ?" in statement:
            looked_up.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        for _ in range(3):
            assert manager.access.recognise(token, ADDRESS) == caller == manager.access.known(token)
            manager.open_session(caller=caller)
            manager.access.write_uses(at_once=True)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert looked_up == []
    with manager.database.read() as transaction:
        assert transaction.get_one(Token, caller.token_id).last_used_at is not None


@pytest.mark.parametrize("is_other_process", [False, True])
def test_a_revoked_token_counts_at_once(manager: LabManager, other: Database, is_other_process: bool) -> None:
    """Whoever revoked it, and however often it was recognised before."""
    token = make_token(manager.database, "ci")
    manager.access.recognise(token, ADDRESS)
    revoke(other if is_other_process else manager.database, "ci")
    assert manager.access.known(token) is None
    with pytest.raises(TokenInvalid, match="revoked"):
        manager.access.recognise(token, ADDRESS)
    other.dispose()


def test_a_token_that_is_revoked_counts_while_we_write(manager: LabManager, other: Database) -> None:
    """Whoever uses it then is refused at the latest when the transaction is over, and never let in."""
    token = make_token(manager.database, "ci")
    manager.access.recognise(token, ADDRESS)
    revoke(other, "ci")
    with ThreadPoolExecutor(1) as pool:
        with manager.database.write() as transaction:
            transaction.execute(text("SELECT 1"))
            answer = pool.submit(manager.access.recognise, token, ADDRESS)
            wait([answer], timeout=0.2)
        with pytest.raises(TokenInvalid, match="revoked"):
            answer.result()
    other.dispose()


def test_a_token_expires_while_it_is_remembered(manager: LabManager) -> None:
    """Nobody writes anything for it."""
    token = make_token(manager.database, "short", datetime.now(UTC) + timedelta(seconds=0.3))
    manager.access.recognise(token, ADDRESS)
    wait_until(lambda: manager.access.known(token) is None, "it has expired")
    with pytest.raises(TokenInvalid, match="expired"):
        manager.access.recognise(token, ADDRESS)


@pytest.mark.parametrize("is_other_process", [False, True])
def test_a_token_that_is_revoked_while_it_is_looked_up_is_not_remembered(
    manager: LabManager, other: Database, monkeypatch: pytest.MonkeyPatch, is_other_process: bool
) -> None:
    """The other party comes in between the reading and the remembering."""
    token = make_token(manager.database, "ci")
    manager.session(manager.open_session().session_id)
    find = tokens.find

    def too_late(transaction: Transaction, sha256: str) -> Token | None:
        found = find(transaction, sha256)
        revoke(other if is_other_process else manager.database, "ci")
        return found

    with monkeypatch.context() as patched:
        patched.setattr(tokens, "find", too_late)
        assert manager.access.recognise(token, ADDRESS).name == "ci"
    with pytest.raises(TokenInvalid, match="revoked"):
        manager.access.recognise(token, ADDRESS)
    other.dispose()
