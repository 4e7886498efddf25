"""The hold: after a failure a lab is kept for a while, so that somebody can log in and look.

It is a wait and what is said meanwhile; when it happens is `failures.py`'s matter.
"""

from __future__ import annotations

import contextlib
import math
import re
import shlex
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from remote_lab.durations import exactly

if TYPE_CHECKING:
    from remote_lab.client import DeviceInfoDto, RemoteLabClient

LOOK_SECONDS = 1.0
LEASE_MARGIN_SECONDS = 30.0
"""What is left of the lease when a hold ends: time to give everything back in order."""

Say = Callable[[str], None]


def hold(
    client: RemoteLabClient,
    devices: Sequence[DeviceInfoDto],
    seconds: float,
    say: Say,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> float:
    """Keep the lab for so many seconds, or until somebody waits for it; return how long it was kept.

    1. Nobody is held up: when somebody waits already, there is no hold.
    2. The lease is extended where it would end sooner, as far as the server allows; the hold ends before it.
    3. Say how to log in and until when.
    4. Look once a second whether somebody waits; end at once then, and when the session is gone.

    The client's heartbeat keeps the session meanwhile. KeyboardInterrupt passes through; so does nothing else.
    """
    try:
        waiting = client.waiting()
    except OSError as error:
        say(f"The lab is not kept: {error}")
        return 0.0
    if waiting:
        say(f"The lab is not kept: {_people(waiting)} for it.")
        return 0.0
    seconds = _within_lease(client, seconds, say)
    if seconds <= 0:
        return 0.0
    started = time.monotonic()
    until = datetime.now().astimezone() + timedelta(seconds=seconds)
    say(f"The lab is kept for {exactly(seconds)}, until {until:%H:%M:%S}; Ctrl-C ends that and the run. Log in:")
    for line in _ways_in(client, devices):
        say(f"  {line}")
    if waiting is None:
        say("This server does not say whether somebody waits for the lab: nobody is let in before the time is over.")
    reason = _wait(client, started + seconds, sleep)
    held_seconds = time.monotonic() - started
    say(f"The lab was kept for {exactly(held_seconds)}: {reason}.")
    return held_seconds


def _wait(client: RemoteLabClient, deadline: float, sleep: Callable[[float], None]) -> str:
    """Return why the wait is over."""
    from remote_lab.client import SessionGoneError

    while (left_seconds := deadline - time.monotonic()) > 0:
        sleep(min(LOOK_SECONDS, left_seconds))
        try:
            waiting = client.waiting()
        except SessionGoneError as error:
            return f"the session is gone ({error})"
        except OSError:
            continue  # a server that restarts keeps the session and the lab
        if waiting:
            return f"{_people(waiting)} for it"
    return "the time is over"


def _within_lease(client: RemoteLabClient, seconds: float, say: Say) -> float:
    """Extend the lease if it ends before the hold would; return how long the hold can be."""
    left_seconds = _lease_left(client)
    if left_seconds >= seconds:
        return seconds
    _extend_lease(client, seconds + LEASE_MARGIN_SECONDS)
    left_seconds = min(_lease_left(client), seconds)
    if left_seconds <= 0:
        say("The lab is not kept: the session's lease is about to end, and this server extends it no further.")
    elif left_seconds < seconds:
        say("The lab is kept for less than was asked for: the session's lease ends, and is extended no further.")
    return left_seconds


def _lease_left(client: RemoteLabClient) -> float:
    """Return how long the lab can be kept before the session has to be given back; inf without a lease."""
    try:
        lease_expires_at = client.lease_expires_at()
    except OSError:
        return math.inf
    if lease_expires_at is None:
        return math.inf
    # The server's clock and this one are taken to agree; the margin is for what they don't.
    return (lease_expires_at - datetime.now(UTC)).total_seconds() - LEASE_MARGIN_SECONDS


def _extend_lease(client: RemoteLabClient, seconds: float) -> None:
    """Have the lease end in so many seconds, or as late as the server allows; as it is when the server refuses."""
    from remote_lab.client import RemoteLabHTTPError

    try:
        client.extend(seconds)
    except RemoteLabHTTPError as error:
        possible = re.search(r"at most (\d+) s", str(error.detail))
        # A second less: that is how long ago the server said so, at most.
        if possible and int(possible[1]) > 1:
            with contextlib.suppress(OSError):
                client.extend(int(possible[1]) - 1)
    except OSError:
        pass


def _ways_in(client: RemoteLabClient, devices: Sequence[DeviceInfoDto]) -> list[str]:
    """Return a line for each device, to paste into a shell, and one for all."""
    from remote_lab.client.inventory import ssh_command

    lines = []
    for device in devices:
        about = f"{device.name} ({device.platform.netlab})"
        try:
            command = ssh_command(device)
        except ValueError as error:
            lines.append(f"{about}: {error}")
            continue
        secret = f", password {device.password!r}" if device.password and not device.key_file else ""
        lines.append(f"{command}    # {about}{secret}")
    try:
        lines.append(f"ssh -F {shlex.quote(str(client.inventory('ssh_config')))} NAME    # each by its name")
    except (OSError, ValueError) as error:
        lines.append(f"There is no ssh_config: {error}")
    return lines


def _people(number: int) -> str:
    return "somebody waits" if number == 1 else f"{number} others wait"
