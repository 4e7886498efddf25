"""Changes to sessions and labs: through the server that has the state folder, or done here when no server runs.

Both ways look the same to a command, and in both the lab is really down when `until_down` returns.
"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import click

from remote_lab import __version__
from remote_lab.cli.output import plain
from remote_lab.cli.records import reading
from remote_lab.config import Config
from remote_lab.errors import SessionNotFound

if TYPE_CHECKING:
    import requests

    from remote_lab.core.instance import Holder
    from remote_lab.core.manager import LabManager
    from remote_lab.core.overview import LabRecord

CALL_SECONDS = 10.0
POLL_SECONDS = 0.05
SAY_SECONDS = 1.0
"""A teardown that takes longer is announced."""
MARGIN_SECONDS = 10.0
REASON = "an operator ended it"
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what a server was told to listen on


class Changes(Protocol):
    """What operators change."""

    def end_session(self, session_id: str) -> bool:
        """End a session; its lab goes down. False when somebody else has ended it since it was looked up."""

    def extend_session(self, session_id: str, lease_seconds: float) -> None:
        """Let an active session go on for so long from now; 0: without limit."""

    def destroy_lab(self, session_id: str, force: bool) -> None:
        """Take the lab of a session down; without `force` only an unreferenced one."""


@contextmanager
def changing(config: Config) -> Iterator[Changes]:
    """Whoever makes the changes. ClickException when there is a server that does not answer or refuses."""
    from remote_lab.core.instance import find_holder

    holder = find_holder(config.state_dir)
    if holder is not None:
        yield ByServer(config, holder)
        return
    with _own_manager(config) as manager:
        yield ByHand(manager)


def server_url(holder: Holder) -> str:
    """Where a server that listens on `host:port` is reached from this host."""
    host, _, port = holder.address.rpartition(":")
    host = _ANYWHERE.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def call_server(config: Config, holder: Holder, method: str, path: str, **arguments: Any) -> requests.Response:
    """One request to the server on this host, as its operator; ClickException when it does not answer.

    Who may not read the state folder calls as REMOTE_LAB_TOKEN says.
    """
    import requests

    from remote_lab.client.address import BearerAuth
    from remote_lab.entrance import operator_token

    token = operator_token(config.state_dir) or os.environ.get("REMOTE_LAB_TOKEN")
    with requests.Session() as http:
        http.trust_env = False  # a proxy would look for it on its own host
        http.headers["User-Agent"] = f"remote-lab-operator/{__version__}"
        if token is not None:
            http.auth = BearerAuth(token)
        try:
            return http.request(method, server_url(holder) + path, timeout=CALL_SECONDS, **arguments)
        except requests.RequestException as error:
            why = "within 10 s" if isinstance(error, requests.Timeout) else "at all"
            raise click.ClickException(
                f"The server, pid {holder.pid}, does not answer on {server_url(holder)} {why}. "
                "It may still be starting: try again, and see its log."
            ) from error


class Refused(click.ClickException):
    """What the server answered, with the code of its error; "" when it gave none."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ByServer:
    """See `Changes`."""

    def __init__(self, config: Config, holder: Holder) -> None:
        self._config = config
        self._holder = holder

    def end_session(self, session_id: str) -> bool:
        try:
            self._call("DELETE", f"/session/{session_id}", params={"reason": REASON})
        except Refused as refusal:
            if refusal.code != SessionNotFound.code:
                raise
            return False
        return True

    def extend_session(self, session_id: str, lease_seconds: float) -> None:
        self._call("POST", f"/session/{session_id}/extend", json={"lease_seconds": lease_seconds})

    def destroy_lab(self, session_id: str, force: bool) -> None:
        header = {"X-Session-ID": session_id}
        self._call("DELETE", "/lab", headers=header, params={"force": "true" if force else "false"})

    def _call(self, method: str, path: str, **arguments: Any) -> None:
        response = call_server(self._config, self._holder, method, path, **arguments)
        if response.status_code < 400:
            return
        try:
            said = response.json()
            code, detail = said["code"], said["detail"]
        except (ValueError, KeyError, TypeError):
            code, detail = "", f"it answered {response.status_code}"
        raise Refused(code, f"The server refuses: {plain(detail)}")


class ByHand:
    """See `Changes`; what is begun here is ended by `_own_manager`."""

    def __init__(self, manager: LabManager) -> None:
        self._manager = manager

    def end_session(self, session_id: str) -> bool:
        try:
            self._manager.end_session(session_id, REASON)
        except SessionNotFound:
            return False
        return True

    def extend_session(self, session_id: str, lease_seconds: float) -> None:
        self._manager.extend_session(session_id, lease_seconds)

    def destroy_lab(self, session_id: str, force: bool) -> None:
        self._manager.desk.destroy(session_id, force)


@contextmanager
def _own_manager(config: Config) -> Iterator[LabManager]:
    """The use cases in this process; a server that starts meanwhile waits for its end, and so do the teardowns."""
    from remote_lab.app import create_app
    from remote_lab.core.instance import Instance

    check_owner(config)
    with Instance(config.state_dir).worker():
        manager: LabManager = create_app(config).extensions["remote_lab"]
        manager.boots.end_from_now_on(REASON)
        try:
            yield manager
        finally:
            manager.boots.end_all(REASON, config.teardown_seconds + MARGIN_SECONDS)
            manager.database.dispose()


def check_owner(config: Config, could_server: bool = True) -> None:
    """Files made here by somebody else would keep the server from its own state.

    `could_server`: a server that runs would do it instead.
    """
    owner = config.state_dir.stat().st_uid
    if owner == os.geteuid():
        return
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = f"uid {owner}"
    if not could_server:
        raise click.ClickException(f"{config.state_dir} belongs to {name}: do it as {name}.")
    raise click.ClickException(
        f"{config.state_dir} belongs to {name}, and no server runs that could do this. Start the server, "
        f"or do it as {name}."
    )


def until_down(config: Config, lab_id: str) -> LabRecord | None:
    """Wait until a lab has let its slot go; None when it is forgotten already.

    ClickException when that takes longer than a teardown may.
    """
    began = time.monotonic()
    said = False
    while True:
        lab = _look(config, lab_id)
        if lab is None or not lab.is_live:
            return lab
        waited = time.monotonic() - began
        if waited > SAY_SECONDS and not said:
            said = True
            click.echo(f"Lab {plain(lab.topology)} is on its way down ...", err=True)
        if waited > config.teardown_seconds + MARGIN_SECONDS:
            raise click.ClickException(
                f"Lab {plain(lab.topology)} is still {lab.state} after {waited:.0f} s, see the server's log."
            )
        time.sleep(POLL_SECONDS)


def _look(config: Config, lab_id: str) -> LabRecord | None:
    from remote_lab.core import overview

    with reading(config) as transaction:
        return overview.lab(transaction, lab_id)
