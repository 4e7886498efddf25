"""netlab's word on a lab is asked once for all who look at about the same time."""

from __future__ import annotations

import threading

import pytest
from fakes import FakeClock

from remote_lab.core.statuses import FRESH_SECONDS, Statuses


def test_a_word_is_fresh_for_some_seconds(clock: FakeClock) -> None:
    """Of each lab its own."""
    statuses, words = Statuses(clock), iter("abcd")
    assert [statuses.of(lab, lambda: next(words)) for lab in ("one", "two", "one")] == ["a", "b", "a"]
    clock.seconds += FRESH_SECONDS
    assert [statuses.of(lab, lambda: next(words)) for lab in ("one", "one", "two")] == ["c", "c", "d"]


def test_who_looks_while_it_is_asked_waits_for_the_answer(clock: FakeClock) -> None:
    """Also when that takes longer than an answer is fresh: a host that is slow gets no more to do."""
    statuses, asked, heard = Statuses(clock), [], []

    def ask() -> str:
        asked.append(threading.current_thread().name)
        if len(asked) == 1:
            clock.seconds += 2 * FRESH_SECONDS
            other.start()
            other.join(0.1)  # where it asks as well, it has done so by then
        return f"answer {len(asked)}"

    other = threading.Thread(target=lambda: heard.append(statuses.of("one", ask)))
    assert statuses.of("one", ask) == "answer 1"
    other.join()
    assert (len(asked), heard) == (1, ["answer 1"])


def test_a_question_that_fails_is_asked_again(clock: FakeClock) -> None:
    """By whoever looks next."""
    statuses = Statuses(clock)

    def fail() -> str:
        raise OSError("no process is left")

    with pytest.raises(OSError, match="no process is left"):
        statuses.of("one", fail)
    assert statuses.of("one", lambda: "it runs") == "it runs"
