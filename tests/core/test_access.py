"""Who may call and how much: the policy of the door, what is counted, and for how long."""

from __future__ import annotations

import pytest

from remote_lab.config import Config
from remote_lab.core.access import asks_for_tokens
from remote_lab.core.throttle import Budget, Tally


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
