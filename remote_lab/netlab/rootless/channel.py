"""Starts the keeper of a pod and talks with it as long as the boot of its lab lasts; see `keeper.py`."""

from __future__ import annotations

import errno
import json
import socket
import subprocess
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from typing import Any

from remote_lab.netlab.rootless import commands

_ANSWER_SECONDS = 30.0
_MAX_ANSWER_BYTES = 65536
SSH_PORT = 22
FORWARDED_PORTS = {SSH_PORT: 20022, 80: 20080, 443: 20443, 830: 20830, 8080: 28080}
"""Port of a device -> port of its address on the host: 20000 more, because those below 1024 are root's."""


class KeeperFailed(Exception):
    """A keeper did not do what it was asked for; the message says why."""


class NumberTaken(Exception):
    """Another keeper, or something else on this host, has its address."""


class Channel:
    """A keeper and the socket to it.

    Args:
        process: that started it, and ends at once.
        stream: the other end of its standard input and output.
    """

    def __init__(self, process: subprocess.Popen[bytes], stream: socket.socket) -> None:
        self._process = process
        self._socket = stream
        self._socket.settimeout(_ANSWER_SECONDS)
        self._answers = stream.makefile("rb")

    def ask(self, order: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Have it do something, with copies of our descriptors.

        Raises:
            KeeperFailed: it was not done.
        """
        line = json.dumps(order).encode() + b"\n"
        try:
            sent = socket.send_fds(self._socket, [line], descriptors)
            self._socket.sendall(line[sent:])
        except OSError as error:
            raise KeeperFailed(f"its keeper is gone: {error}") from error
        self.expect()
        self._process.poll()  # a spare may be there for long: no zombie waits for its end

    def expect(self) -> None:
        """Wait for an answer.

        Raises:
            NumberTaken, KeeperFailed: it is another one than yes.
        """
        answer = self._answer()
        if answer.get("errno") in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
            raise NumberTaken
        if "error" in answer:
            raise KeeperFailed(str(answer["error"]))

    def _answer(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._answers.readline(_MAX_ANSWER_BYTES)))
        except TimeoutError as error:
            raise KeeperFailed(f"its keeper says nothing for {_ANSWER_SECONDS:.0f} s") from error
        except (OSError, ValueError) as error:
            raise KeeperFailed("its keeper ended without a word") from error

    def close(self) -> None:
        self._answers.close()
        self._socket.close()
        self._process.wait()


def start_keeper(address: IPv4Address, tag: str) -> Channel:
    """Start a keeper that has taken its number.

    Args:
        address: that stands for the number.
        tag: says whose it is, see `keepers.tag`.
    Raises:
        NumberTaken: of the address.
        KeeperFailed: there is none.
    """
    try:
        ids = commands.own_ids()
    except commands.NoSubIds as error:
        raise KeeperFailed(str(error)) from error
    here, there = socket.socketpair()
    try:
        process = subprocess.Popen(
            commands.launch_command("keep", ids, str(address), str(FORWARDED_PORTS[SSH_PORT]), tag),
            stdin=there.fileno(),
            stdout=there.fileno(),
            stderr=subprocess.DEVNULL,
            env=commands.ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    except BaseException:
        here.close()
        raise
    finally:
        there.close()
    channel = Channel(process, here)
    try:
        channel.expect()
    except BaseException:
        channel.close()
        raise
    return channel


def forward_address(device: IPv4Address) -> IPv4Address:
    """Return where a device is reached on the host: its own address with 127 in front."""
    return IPv4Address((127 << 24) | (int(device) & 0xFFFFFF))


def forwards(devices: Sequence[IPv4Address]) -> list[tuple[str, int, str, int]]:
    """Return what a keeper is asked to pass on, as it wants it."""
    return [
        (str(forward_address(device)), here, str(device), behind)
        for device in devices
        for behind, here in FORWARDED_PORTS.items()
    ]
