"""A stay on a lab host: from the queue to giving everything back. It works on other threads than the one with signals.

Waiting for it, interrupting it and the command that it is for are the matter of `run.py`.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import requests

from remote_lab.client import RemoteLabClient, RemoteLabHTTPError
from remote_lab.client.folder import PrivateFolder
from remote_lab.jobs.handover import VARIABLES, hand_over

if TYPE_CHECKING:
    from remote_lab.local import LocalServer

WATCH_SECONDS = 5.0
"""Between two looks at whether the session is still there, while the command runs."""

LOOK_SECONDS = 0.05
"""Between two looks at whether a session has its id, while it is being opened and is not wanted any more."""


@dataclass(frozen=True)
class Wish:
    """What is wanted of the lab host."""

    url: str | None
    """None: a server of this machine."""
    topology: Path
    reuse: bool
    extra_files: Sequence[Path]
    inventories: Sequence[str]
    """Kinds that must be written; without any all are that can be."""
    session_timeout: float | None
    """Longest time in the queue, seconds; None leaves it to the client."""
    acquisition_timeout: float | None
    """Longest time until the lab is up, seconds; None leaves it to the client."""
    purpose: str | None
    ci_job: str | None


class Tenant(RemoteLabClient):
    """A client that somebody knows before it is its turn, so that it can be told to give up its place."""

    def __init__(self, register: Callable[[Tenant], None], **arguments: Any) -> None:
        register(self)
        super().__init__(**arguments)


class Stay:
    """One session with its lab. `begin`, `cancel` and `end` may each take long and never raise for a signal.

    `say` prints a line for people.
    """

    def __init__(self, wish: Wish, say: Callable[[str], None]) -> None:
        self._wish = wish
        self._say = say
        self._private = PrivateFolder()
        self._run_dir: Path | None = None
        """Of the server on this machine, whose guard removes it."""
        self._client: Tenant | None = None
        self._local: LocalServer | None = None
        self._has_reference = False
        self._noted = False
        self._begun = threading.Event()
        self._called_off = threading.Event()
        self._ended = threading.Event()

    @property
    def session_id(self) -> str:
        """The session's id, "" before it has one and after its end."""
        # The attribute is not there before the client's constructor has come to it.
        return str(getattr(self._client, "session_id", ""))

    def begin(self) -> dict[str, str]:
        """Wait for the turn, boot the lab; return the variables for the command.

        Raises what the client raises; click.ClickException without a URL on a machine that cannot run labs.
        """
        wish = self._wish
        try:
            url = wish.url or self._obtain_local()
            client = Tenant(
                self._register,
                base_url=url,
                session_timeout=wish.session_timeout,
                lab_acquisition_timeout=wish.acquisition_timeout,
                purpose=wish.purpose,
                ci_job=wish.ci_job,
                topology=wish.topology,
                extra_files=wish.extra_files,
                live=sys.stderr,
            )
            devices = client.acquire(wish.topology, wish.reuse, wish.extra_files)
            self._has_reference = True
            kinds = wish.inventories or tuple(VARIABLES)
            if sys.stderr.isatty() and "ssh_config" in kinds and devices:
                names = ", ".join(device.name for device in devices)
                self._say(f"Up: {names}. To log in: ssh -F $REMOTE_LAB_SSH_CONFIG {devices[0].name}")
            # Not the client's own base_url, which has lost user and password.
            session = {"REMOTE_LAB_URL": url, "REMOTE_LAB_SESSION_ID": client.session_id}
            return session | hand_over(devices, kinds, self._run_dir or self._private.path, self._refused)
        finally:
            self._begun.set()

    def cancel(self) -> None:
        """End the session while `begin` waits for its turn or its lab; `begin` then fails.

        A session that is just being opened is waited for: its id is in the answer. None is opened from here on.
        """
        self._called_off.set()
        while self._client is not None and not self.session_id and not self._begun.wait(LOOK_SECONDS):
            pass
        if self.session_id and self._client is not None and self._client.owns_session:
            self._client.close()

    def end(self) -> None:
        """Give everything back; with a server of this run wait until it is gone."""
        self._ended.set()
        if self._client is not None and hasattr(self._client, "session_id"):
            if self._has_reference and not self._client.owns_session:
                self._client.release()
            self._client.close()
        if self._local is not None:
            self._local.stop()
        self._private.remove()
        # A server that is just being started is its guard's matter, and so is the folder.
        if self._begun.is_set() and self._run_dir is not None:
            shutil.rmtree(self._run_dir, ignore_errors=True)

    def watch(self) -> str:
        """Return when the session is gone, with the reason, or "" when it is given back.

        A lab host that does not answer is no reason: labs outlive a restart of their server.
        """
        silent = False
        while not self._ended.wait(WATCH_SECONDS):
            try:
                self._look()
            except requests.RequestException as error:
                if isinstance(error, RemoteLabHTTPError) and error.response.status_code == 404:
                    return str(error.detail)
                if not silent:
                    self._say(f"No word from the lab host, the command goes on: {error}")
                silent = True
            else:
                if silent:
                    self._say("The lab host answers again.")
                silent = False
        return ""

    def note(self) -> None:
        """Tell the guard of a server on this machine which session is ours, as soon as it has an id."""
        if self._local is not None and self._run_dir is not None and not self._noted and self.session_id:
            from remote_lab.local import note_session

            note_session(self._run_dir, self._local.url, self.session_id)
            self._noted = True

    def _look(self) -> None:
        if self._client is not None:
            self._client.waiting()

    def _refused(self, kind: str, error: ValueError) -> None:
        if kind in self._wish.inventories:
            raise error
        self._say(f"No inventory for {kind}: {error}")

    def _register(self, client: Tenant) -> None:
        self._client = client
        if self._called_off.is_set():
            raise click.Abort

    def _obtain_local(self) -> str:
        from remote_lab.local import LocalServerFailed, NoLabsHere, obtain

        self._run_dir = Path(tempfile.mkdtemp(prefix="remote-lab-run-"))
        try:
            self._local = obtain(self._run_dir, os.getpid(), os.environ, self._say)
        except (NoLabsHere, LocalServerFailed) as error:
            raise click.ClickException(f"REMOTE_LAB_URL is not set, and there is no lab here: {error}") from error
        return self._local.url
