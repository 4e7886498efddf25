"""How long a thread waits for a client, on connections of this process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from remote_lab import patience
from remote_lab.patience import Crowd, RequestTooSlow, TimelyReader, TimelySocket, say_goodbye

THREADS = 8
"""Of which one may wait for a slow client."""
MUCH = b"x" * 4_000_000


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in less time."""
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(patience, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(patience, "REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(patience, "SEND_SECONDS", 0.3)
    monkeypatch.setattr(patience, "LINGER_SECONDS", 0.3)
    monkeypatch.setattr(patience, "BYTES_PER_SECOND", 100_000_000)


@pytest.fixture
def crowd() -> Crowd:
    """The threads of a worker."""
    return Crowd(THREADS)


@pytest.fixture
def pair(crowd: Crowd) -> Iterator[tuple[TimelySocket, socket.socket]]:
    """A connection, and its client."""
    with ExitStack() as stack:
        ours, theirs = socket.socketpair()
        yield stack.enter_context(TimelySocket.of(ours, crowd)), stack.enter_context(theirs)


def test_who_does_not_take_the_answer_is_given_up(crowd: Crowd, pair: tuple[TimelySocket, socket.socket]) -> None:
    """At once when all places for the slow are taken, else when the time is over; the place is free again."""
    ours, _ = pair
    with pytest.raises(ConnectionResetError):
        ours.sendall(MUCH)
    assert not crowd.take_place()
    ours.pace.end()
    assert crowd.take_place()
    with pytest.raises(ConnectionResetError):
        ours.sendall(MUCH)
    ours.pace.end()
    assert not crowd.take_place(), "one that found no place gives none back"


def test_a_drip_is_slow_though_it_never_stops(crowd: Crowd, pair: tuple[TimelySocket, socket.socket]) -> None:
    """Waiting adds up: bytes that come one by one do not keep a thread."""
    ours, theirs = pair
    assert crowd.take_place()
    reader = TimelyReader(ours, crowd)
    reader.begin(b"")
    is_over = threading.Event()

    def drip() -> None:
        while not is_over.wait(0.01):
            theirs.send(b"x")

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        with pytest.raises(RequestTooSlow, match="too many other requests are slow"):
            read_all(reader)
    finally:
        is_over.set()
        dripping.join()
    assert reader.gave_up


def read_all(reader: TimelyReader) -> None:
    """Read until nothing comes any more."""
    while reader.chunk():
        pass


def test_when_many_wait_patience_is_short(crowd: Crowd, pair: tuple[TimelySocket, socket.socket]) -> None:
    """More than half of the threads wait: the others are spared."""
    assert not crowd.is_pressed
    with ExitStack() as stack:
        for _ in range(THREADS // 2 + 1):
            stack.enter_context(crowd)
        assert crowd.is_pressed
    assert not crowd.is_pressed


def test_the_body_is_asked_for_when_somebody_reads_it(crowd: Crowd, pair: tuple[TimelySocket, socket.socket]) -> None:
    """And once."""
    ours, theirs = pair
    reader = TimelyReader(ours, crowd)
    reader.begin(b"")
    reader.must_say_continue = True
    theirs.send(b"body")
    assert reader.chunk() == b"body"
    assert theirs.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    theirs.send(b"more")
    assert reader.chunk() == b"more"
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(100)


def test_nobody_waits_long_for_the_rest_of_a_refused_upload(
    crowd: Crowd, pair: tuple[TimelySocket, socket.socket]
) -> None:
    """What comes is taken; who stops is left."""
    ours, theirs = pair
    reader = TimelyReader(ours, crowd)
    theirs.send(b"x" * 10_000)
    with pytest.raises(TimeoutError):
        say_goodbye(ours, True, reader.pace)
    assert theirs.recv(1) == b"", "the answer is over"
