"""Passes TCP connections on to the devices of one lab: who connects to a listener talks to the device behind it.

One process per lab, one thread. The listeners belong to the network namespace of the host, where they were made; the
process itself is in that of the pod, so that what it connects to is a device of this lab and nothing else.
"""

from __future__ import annotations

import errno
import resource
import selectors
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

_CHUNK_BYTES = 65536
_MAX_CONNECTIONS = 512
"""Of one lab; more are closed at once."""
_CONNECT_SECONDS = 10.0
_BACKLOG = 64
_MAX_FILES = 16384
_RESET = struct.pack("ii", 1, 0)

Address = tuple[str, int]


def open_listeners(forwards: Mapping[Address, Address]) -> dict[socket.socket, Address]:
    """Listen in the network namespace of this process.

    Args:
        forwards: where to listen -> where the device is.
    Raises:
        OSError: an address is taken; the message names it.
    """
    listeners: dict[socket.socket, Address] = {}
    for here, device in forwards.items():
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setblocking(False)
            listener.bind(here)
            listener.listen(_BACKLOG)
        except OSError as error:
            for opened in (listener, *listeners):
                opened.close()
            raise OSError(error.errno, f"cannot listen on {here[0]}:{here[1]}: {error.strerror}") from error
        listeners[listener] = device
    return listeners


def raise_file_limit() -> None:
    """Two files per connection, one per listener, are more than the usual soft limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@dataclass(eq=False)
class _End:
    """One of the two sockets of a connection."""

    stream: socket.socket
    pending: bytearray = field(default_factory=bytearray)
    """What the other end said and this one has not taken yet."""
    has_spoken: bool = False
    """It says no more."""
    was_told: bool = False
    """It knows that the other end says no more."""


@dataclass(eq=False)
class _Connection:
    client: _End
    device: _End
    deadline: float | None
    """Until when the device has to answer; None when it has."""

    def ends(self) -> Iterator[tuple[_End, _End]]:
        """Yield each end with the other one."""
        yield self.client, self.device
        yield self.device, self.client


class Forwarder:
    """Passes on what comes to listeners.

    Args:
        listeners: listening socket -> address of the device; not blocking.
    """

    def __init__(self, listeners: Mapping[socket.socket, Address]) -> None:
        self._listeners = listeners
        self._selector = selectors.DefaultSelector()
        self._connections: set[_Connection] = set()
        for listener, device in listeners.items():
            self._selector.register(listener, selectors.EVENT_READ, device)

    def run(self) -> None:
        """Pass on until the process ends."""
        while True:
            self.step(1.0)

    def step(self, seconds: float) -> None:
        """Do what there is to do now, after waiting at most so long for it."""
        for key, events in self._selector.select(seconds):
            if isinstance(key.data, _Connection):
                if key.data in self._connections:
                    self._move(key.data, key.fileobj, events)
            elif isinstance(key.fileobj, socket.socket):
                self._accept(key.fileobj, key.data)
        now = time.monotonic()
        for late in [one for one in self._connections if one.deadline is not None and one.deadline < now]:
            self._close(late)

    def _accept(self, listener: socket.socket, device: Address) -> None:
        try:
            client, _ = listener.accept()
        except OSError:  # gone again, or no file left: the next one may have more luck
            return
        if len(self._connections) >= _MAX_CONNECTIONS:
            _reset(client)
            return
        try:
            stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        except OSError:
            _reset(client)
            return
        for end in (client, stream):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(_End(client), _End(stream), time.monotonic() + _CONNECT_SECONDS)
        self._connections.add(connection)
        if stream.connect_ex(device) not in (0, errno.EINPROGRESS):
            self._close(connection)
            return
        self._selector.register(stream, selectors.EVENT_WRITE, connection)

    def _move(self, connection: _Connection, stream: object, events: int) -> None:
        try:
            if connection.deadline is not None:
                self._finish_connect(connection)
            for end, other in connection.ends():
                if end.stream is stream:
                    if events & selectors.EVENT_READ:
                        _read(end, other)
                    if events & selectors.EVENT_WRITE:
                        _write(end)
            for end, other in connection.ends():
                if other.has_spoken and not end.pending and not end.was_told:
                    end.was_told = True
                    end.stream.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(connection)
            return
        if connection.client.was_told and connection.device.was_told:
            self._close(connection, in_order=True)
            return
        for end, other in connection.ends():
            self._watch(connection, end, other)

    def _finish_connect(self, connection: _Connection) -> None:
        number = connection.device.stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, "the device cannot be reached")
        connection.deadline = None

    def _watch(self, connection: _Connection, end: _End, other: _End) -> None:
        # Nothing is read of an end while the other has not taken what was read before.
        events = 0 if end.has_spoken or other.pending else selectors.EVENT_READ
        events |= selectors.EVENT_WRITE if end.pending else 0
        is_watched = end.stream in self._selector.get_map()
        if events and is_watched:
            self._selector.modify(end.stream, events, connection)
        elif events:
            self._selector.register(end.stream, events, connection)
        elif is_watched:
            self._selector.unregister(end.stream)

    def _close(self, connection: _Connection, *, in_order: bool = False) -> None:
        self._connections.discard(connection)
        for end, _ in connection.ends():
            with suppress(KeyError):
                self._selector.unregister(end.stream)
            if in_order:
                end.stream.close()
            else:
                _reset(end.stream)


def _read(end: _End, other: _End) -> None:
    with suppress(BlockingIOError):
        chunk = end.stream.recv(_CHUNK_BYTES)
        end.has_spoken = not chunk
        other.pending += chunk
        _write(other)


def _write(end: _End) -> None:
    with suppress(BlockingIOError):
        if end.pending:
            del end.pending[: end.stream.send(end.pending)]


def _reset(stream: socket.socket) -> None:
    """Close a connection so that its other side sees an error and not an end."""
    with suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    stream.close()
