"""Finds a Remote Lab Manager that runs on this host and is well: one lab at a time is a promise of the whole host."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote_lab.errors import SettingInvalid
from remote_lab.local import http
from remote_lab.local.kernel import is_locked
from remote_lab.local.runs import read_json

SETTING = "REMOTE_LAB_JOIN"
SYSTEM_STATE_DIRS = (Path("/var/lib/remote-lab"),)
"""Of the systemd unit."""
DEFAULT_URLS = ("http://127.0.0.1:8000",)
LOOK_SECONDS = 5.0
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - what a server was told to listen on
_OURS = {"status", "slots", "labs", "version"}
_YES, _NO = ("", "1", "true", "yes", "on"), ("0", "false", "no", "off")


@dataclass(frozen=True)
class Running:
    """A server that runs and is well."""

    url: str
    provider: str


def find_running(environment: Mapping[str, str], say: Callable[[str], None]) -> Running | None:
    """The first server of this host that is well; `say` is told of those that are not.

    Looked for in the state folders of `environment` (REMOTE_LAB_STATE_DIR, HOME) and of the system service, then at
    the default address. None without one, and always with REMOTE_LAB_JOIN=0; SettingInvalid for another value of it.
    """
    wanted = environment.get(SETTING, "").strip().lower()
    if wanted not in (*_YES, *_NO):
        raise SettingInvalid(SETTING, wanted, "1 or 0")
    if wanted in _NO:
        return None
    seen = set()
    for url in (*_announced(environment), *DEFAULT_URLS):
        if url not in seen:
            seen.add(url)
            found = _ask(url, environment.get("REMOTE_LAB_TOKEN"), url not in DEFAULT_URLS, say)
            if found is not None:
                return found
    return None


def _announced(environment: Mapping[str, str]) -> Iterator[str]:
    """Where servers say that they are: the lock tells a server from what a killed one left."""
    own = [environment["REMOTE_LAB_STATE_DIR"]] if environment.get("REMOTE_LAB_STATE_DIR") else []
    home = [Path(environment["HOME"], ".local/state/remote-lab")] if environment.get("HOME") else []
    for folder in (*(Path(one).expanduser() for one in own), *SYSTEM_STATE_DIRS, *home):
        match read_json(folder / "server.json"):
            case {"address": str(address)} if is_locked(folder / "server.lock"):
                yield url_of(address)


def url_of(address: str) -> str:
    """Where a server that listens on `host:port` is reached from this host."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    host = _ANYWHERE.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _ask(url: str, token: str | None, is_announced: bool, say: Callable[[str], None]) -> Running | None:
    try:
        status, health = http.call("GET", f"{url}/debug/health", token, LOOK_SECONDS)
    except OSError as error:
        if is_announced:
            say(f"The server on {url} is not used: it does not answer ({error}).")
        return None
    if not isinstance(health, dict):
        return None
    if status == 200 and health.keys() >= _OURS:
        return _judge(url, health, say)
    if is_announced:
        say(f"The server on {url} is not used: it answers {status}, {health.get('detail', 'without a reason')}")
    return None


def _judge(url: str, health: dict[str, Any], say: Callable[[str], None]) -> Running | None:
    if health["status"] != "ok":
        say(f"The server on {url} is not used, it is not well: {health.get('problem')}")
        return None
    return Running(url, str(health.get("provider") or "unknown"))
