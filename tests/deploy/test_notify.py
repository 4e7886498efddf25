"""What systemd hears of a server process, on a socket that stands in for systemd's."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from harness import CALL_SECONDS, STANDIN, Server, running

from remote_lab.notify import ServiceManager


class NotifyingServer(Server):
    """Started as systemd starts a service that it watches."""

    def __init__(self, state_dir: Path, address: str, watchdog_seconds: float = 60) -> None:
        super().__init__(state_dir, PROVIDER="clab", NETLAB=STANDIN, REAPER_SECONDS=60)
        self.variables = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": str(int(watchdog_seconds * 1e6))}

    @property
    def environment(self) -> dict[str, str]:
        """With what only systemd sets."""
        return super().environment | self.variables

    def start(self) -> Server:
        """Start the process and wait for nothing: it says itself when it is ready."""
        self.spawn()
        return self


def hear(receiver: socket.socket, beginning: str) -> str:
    """The next notification that begins like this."""
    while not (said := receiver.recv(4096).decode()).startswith(beginning):
        pass
    return said


@pytest.fixture
def server(notifications: socket.socket, tmp_path: Path) -> Iterator[NotifyingServer]:
    server = NotifyingServer(tmp_path / "state", notifications.getsockname())
    with running(server):
        yield server


def test_ready_is_said_when_requests_are_answered(notifications: socket.socket, server: NotifyingServer) -> None:
    """The first thing that is said at all, and nobody has to ask twice after it."""
    assert notifications.recv(4096) == b"READY=1"
    assert requests.get(f"{server.url}/healthz", timeout=CALL_SECONDS).status_code == 204


def test_the_status_says_what_is_going_on(notifications: socket.socket, tmp_path: Path) -> None:
    """Slots and queue, in one line, after each round of the reaper; at last that it stops."""
    server = NotifyingServer(tmp_path / "state", notifications.getsockname(), watchdog_seconds=1)
    with running(server):
        assert hear(notifications, "WATCHDOG") == "WATCHDOG=1\nSTATUS=0 of 1 slots have a lab, queue length 0"
        session_id = server.open_session()
        while "queue length 1" not in (said := hear(notifications, "WATCHDOG")):
            assert said.endswith("queue length 0")
        server.end_session(session_id)
        assert server.terminate() == 0
        assert hear(notifications, "STOPPING") == "STOPPING=1\nSTATUS=Stopping"


def test_the_watchdog_is_fed_in_time(notifications: socket.socket, tmp_path: Path) -> None:
    """Though an idle server looks after its labs every six minutes only, with this setting."""
    server = NotifyingServer(tmp_path / "state", notifications.getsockname(), watchdog_seconds=1)
    with running(server):
        for _ in range(3):
            assert hear(notifications, "WATCHDOG")


def test_a_name_in_the_abstract_namespace_is_an_address_too() -> None:
    """As in containers: @NAME."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("")  # the kernel chooses a name, unix(7)
        receiver.settimeout(CALL_SECONDS)
        ServiceManager(f"@{receiver.getsockname()[1:].decode()}").alive("two\nlines")
        assert receiver.recv(4096) == b"WATCHDOG=1\nSTATUS=two lines"


def test_nobody_else_inherits_the_right_to_speak() -> None:
    """The variables are gone; those of another process's watchdog mean nothing."""
    environ = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    assert ServiceManager.from_environment(environ) == ServiceManager("/run/x", 3.0)
    assert environ == {"HOME": "/"}
    foreign = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}
    assert ServiceManager.from_environment(foreign) == ServiceManager("/run/x", None)
    assert ServiceManager.from_environment({"WATCHDOG_USEC": "3000000"}) == ServiceManager()


def test_who_does_not_listen_is_told_of_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And the service goes on."""
    ServiceManager(str(tmp_path / "nobody")).ready()
    assert "systemd was not told READY=1" in caplog.text
