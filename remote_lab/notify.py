"""What systemd is told of the service: that it is ready, what it does, that it is still at work (sd_notify(3)).

Only the protocol lives here; who tells what, and when, is `server.py`'s.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import MutableMapping
from dataclasses import dataclass

log = logging.getLogger(__name__)

SEND_SECONDS = 5.0


@dataclass(frozen=True)
class ServiceManager:
    """Whoever started the service and wants to hear of it; nobody outside of systemd."""

    address: str | None = None
    """Of its datagram socket: a path, or `@` and a name in the abstract namespace."""
    watchdog_seconds: float | None = None
    """After so long without `alive()` it ends the service; None: it does not watch."""

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] | None = None) -> ServiceManager:
        """Take over what systemd gave to this process: the variables go, so that nothing started here speaks for it."""
        environ = os.environ if environ is None else environ
        address = environ.pop("NOTIFY_SOCKET", None)
        interval, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        is_meant = not pid or pid == str(os.getpid())
        watched = address is not None and is_meant and interval.isdecimal() and int(interval) > 0
        return cls(address or None, int(interval) / 1e6 if watched else None)

    def ready(self) -> None:
        """Requests are answered from now on."""
        self._tell("READY=1")

    def alive(self, status: str) -> None:
        """A round of the background work is finished; `status` is one line for `systemctl status`."""
        self._tell("WATCHDOG=1", f"STATUS={' '.join(status.split())}")

    def stopping(self) -> None:
        """The service has begun to end."""
        self._tell("STOPPING=1", "STATUS=Stopping")

    def _tell(self, *assignments: str) -> None:
        if self.address is None:
            return
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.settimeout(SEND_SECONDS)
                out.sendto("\n".join(assignments).encode(), address)
        except OSError as error:
            log.warning("systemd was not told %s: %s", assignments[0], error)
