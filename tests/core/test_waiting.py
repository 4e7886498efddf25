"""Held requests: no wake-up is lost, and nobody is held for ever."""

from __future__ import annotations

import threading

import pytest
from fakes import WAIT_SECONDS

from remote_lab.core.waiting import Changes, Room
from remote_lab.errors import TooManyHeldRequests


def test_a_change_between_looking_and_waiting_is_not_missed() -> None:
    """The other party comes in exactly there."""
    changes = Changes()
    looks: list[str] = []

    def look() -> str:
        looks.append("early" if not looks else "late")
        if len(looks) == 1:
            changes.happened()
        return looks[-1]

    assert changes.watch(look, lambda seen: seen == "late", seconds=WAIT_SECONDS) == "late"
    assert looks == ["early", "late"]


def test_every_watcher_is_woken() -> None:
    """Each sees the change for itself."""
    changes, state, seen = Changes(), ["before"], []
    arrived = threading.Barrier(4)

    def watch() -> None:
        arrived.wait(WAIT_SECONDS)
        seen.append(changes.watch(lambda: state[0], lambda now: now == "after", seconds=WAIT_SECONDS))

    watchers = [threading.Thread(target=watch) for _ in range(3)]
    for watcher in watchers:
        watcher.start()
    arrived.wait(WAIT_SECONDS)
    state[0] = "after"
    changes.happened()
    for watcher in watchers:
        watcher.join()
    assert seen == ["after"] * 3


def test_a_watch_ends_with_its_time() -> None:
    """With what was seen last."""
    assert Changes().watch(lambda: "same", lambda _: False, seconds=0.01) == "same"


def test_a_server_that_stops_lets_everybody_go() -> None:
    """Now and from now on, changes or not."""
    changes = Changes()
    changes.close()
    assert changes.watch(lambda: "same", lambda _: False, seconds=WAIT_SECONDS) == "same"
    assert changes.closed


def test_a_room_has_its_places_and_no_more() -> None:
    """A place that is given back is there again."""
    room = Room(1)
    for _ in range(2):
        with room.place(), pytest.raises(TooManyHeldRequests), room.place():
            pytest.fail("there was a second place")
