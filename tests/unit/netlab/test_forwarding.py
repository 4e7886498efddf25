"""The way to devices of labs without root: what goes in at one end comes out at the other, and ends as it would."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from harness import wait_until

from remote_lab.netlab.rootless import forwarding

SECONDS = 20.0
LARGE = bytes(range(256)) * 20_000


@pytest.fixture
def forward() -> Iterator[Callable[[tuple[str, int]], tuple[str, int]]]:
    """Give the address at which a device is reached that listens somewhere else."""
    stopped = threading.Event()
    threads: list[threading.Thread] = []

    def start(device: tuple[str, int]) -> tuple[str, int]:
        listeners = forwarding.open_listeners({("127.0.0.1", 0): device})
        forwarder = forwarding.Forwarder(listeners)
        forwarders.append(forwarder)

        def run() -> None:
            while not stopped.is_set():
                forwarder.step(0.05)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        address: tuple[str, int] = next(iter(listeners)).getsockname()
        opened.extend(listeners)
        return address

    opened: list[socket.socket] = []
    forwarders: list[forwarding.Forwarder] = []
    yield start
    stopped.set()
    for thread in threads:
        thread.join()
    for forwarder in forwarders:  # in its own process the kernel does that
        for connection in list(forwarder._connections):
            forwarder._close(connection)
    for listener in opened:
        listener.close()


@pytest.fixture
def device() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=200) as server:
        server.settimeout(SECONDS)
        yield server


Forward = Callable[[tuple[str, int]], tuple[str, int]]


def connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, timeout=SECONDS)


def read_all(stream: socket.socket) -> bytes:
    said = b""
    while chunk := stream.recv(65536):
        said += chunk
    return said


def test_everything_arrives_in_both_directions(forward: Forward, device: socket.socket) -> None:
    """Five megabytes each way at once, though each end reads only after it has said everything."""
    with connect(forward(device.getsockname())) as client, device.accept()[0] as other:
        heard: dict[str, bytes] = {}

        def talk(name: str, stream: socket.socket) -> None:
            sender = threading.Thread(target=lambda: (stream.sendall(LARGE), stream.shutdown(socket.SHUT_WR)))
            sender.start()
            heard[name] = read_all(stream)
            sender.join()

        other.settimeout(SECONDS)
        threads = [threading.Thread(target=talk, args=pair) for pair in (("client", client), ("device", other))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert heard == {"client": LARGE, "device": LARGE}


def test_end_of_input_is_passed_on_and_the_answer_still_comes(forward: Forward, device: socket.socket) -> None:
    """A client that has said everything hears what the device says after that, as with `ssh r1 cat`."""
    with connect(forward(device.getsockname())) as client, device.accept()[0] as other:
        other.settimeout(SECONDS)
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert read_all(other) == b"question"
        other.sendall(b"answer")
        other.close()
        assert read_all(client) == b"answer"


def test_device_that_does_not_listen_resets_the_connection(forward: Forward) -> None:
    """It is an error for the client, not an empty answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = server.getsockname()
    address = forward(nobody)
    # Which of the two sees it is a matter of time.
    with pytest.raises(ConnectionResetError), connect(address) as client:
        client.recv(1)


def test_end_of_a_client_is_told_to_the_device(forward: Forward, device: socket.socket) -> None:
    """Nobody's connection stays open at the device; the others go on."""
    address = forward(device.getsockname())
    clients = [connect(address) for _ in range(100)]
    others = [device.accept()[0] for _ in clients]
    for client in clients[1:]:
        client.close()
    clients[0].sendall(b"still here")
    said = []
    for other in others:
        other.settimeout(SECONDS)
        said.append(other.recv(100))
        other.close()
    assert sorted(said) == [b""] * 99 + [b"still here"]
    clients[0].close()


def test_lab_cannot_take_more_connections_than_there_are_for_it(
    forward: Forward, device: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One too many is closed at once, and there is room again when another ends."""
    monkeypatch.setattr(forwarding, "_MAX_CONNECTIONS", 2)
    address = forward(device.getsockname())
    with connect(address) as first, connect(address) as second:
        others = [device.accept()[0], device.accept()[0]]
        with pytest.raises(ConnectionResetError), connect(address) as third:
            third.recv(1)
        second.close()
        first.close()
        for other in others:
            other.close()

        def has_room() -> bool:
            try:
                with connect(address) as again:
                    again.settimeout(0.2)
                    return bool(again.recv(1))
            except TimeoutError:
                return True
            except ConnectionResetError:
                return False

        wait_until(has_room, "there is room for another")


def test_taken_address_is_named(device: socket.socket) -> None:
    """What listens where a device should be reached is not the lab's; the address is named."""
    here = device.getsockname()
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{here[1]}: Address already in use"):
        forwarding.open_listeners({here: ("192.0.2.1", 22)})
