"""What a watchdog hears of the reaper's loop."""

from __future__ import annotations

import threading
from collections.abc import Collection

import pytest
from fakes import WAIT_SECONDS, FakeRunner, wait_until

from remote_lab.core.reaper import Reaper


def test_a_hanging_round_is_not_reported(reaper: Reaper, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds are reported as they end, none while one hangs, and again when it goes on."""
    rounds: list[int] = []
    reported_meanwhile: list[int] = []
    hangs, may_go_on = threading.Event(), threading.Event()

    def hang(known: Collection[str]) -> list[str]:
        before = len(rounds)
        hangs.set()
        assert may_go_on.wait(WAIT_SECONDS)
        reported_meanwhile.append(len(rounds) - before)
        return []

    reaper.start(lambda: rounds.append(1), longest_pause_seconds=0.001)
    try:
        wait_until(lambda: len(rounds) > 2, "rounds are reported")
        monkeypatch.setattr(runner, "orphans", hang)
        assert hangs.wait(WAIT_SECONDS)
        before = len(rounds)
        may_go_on.set()
        wait_until(lambda: len(rounds) > before, "rounds are reported again")
    finally:
        may_go_on.set()
        reaper.stop()
    assert set(reported_meanwhile) == {0}


def test_a_watched_loop_rests_no_longer_than_it_may(reaper: Reaper) -> None:
    """Though nothing is to do, which is half a minute of rest otherwise."""
    rounds: list[int] = []
    reaper.start(lambda: rounds.append(1), longest_pause_seconds=0.001)
    wait_until(lambda: len(rounds) > 5, "rounds are made")
    reaper.stop()
    assert reaper.tick() == 30.0
