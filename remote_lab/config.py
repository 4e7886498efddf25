"""The one reader of the environment: every setting with its variable, default, unit and meaning.

A value that cannot be used stops the start with the variable, the value and what is expected. Nothing else in the
package reads the environment (but for the protocol of systemd, `notify.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from typing import Any, cast

from remote_lab.errors import SettingInvalid

PREFIX = "REMOTE_LAB_"
AUTH_MODES = AUTO, TOKEN, OPEN = "auto", "token", "open"
KEEP_LABS = RESTART, ALWAYS, NEVER = "restart", "always", "never"


@dataclass(frozen=True)
class _Kind:
    """How the text of a variable becomes a value: `parse` raises ValueError for what is not `expected`."""

    expected: str
    parse: Callable[[str], Any]


def _number(low: float, expected: str) -> _Kind:
    def parse(text: str) -> float:
        value = float(text)
        if not low <= value < float("inf"):
            raise ValueError(text)
        return value

    return _Kind(expected, parse)


def _integer(low: int, high: int) -> _Kind:
    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return _Kind(f"a whole number from {low} to {high}", parse)


def _pool(text: str) -> IPv4Network:
    network = IPv4Network(text)
    if network.prefixlen > 24 or not network.is_private:
        raise ValueError(text)
    return network


def _flag(text: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]


def _auth(text: str) -> str:
    if text.lower() not in AUTH_MODES:
        raise ValueError(text)
    return text.lower()


def _keep_labs(text: str) -> str:
    if text.lower() not in KEEP_LABS:
        raise ValueError(text)
    return text.lower()


@dataclass(frozen=True)
class Networks:
    """Addresses of several networks; `str()` is what a variable says."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    def __contains__(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self.networks)

    def __str__(self) -> str:
        return ",".join(str(network) for network in self.networks)


def _networks(text: str) -> Networks:
    return Networks(tuple(ip_network(part.strip()) for part in text.split(",")))


_TEXT = _Kind("some text", str)
_FOLDER = _Kind("the path of a folder", lambda text: Path(text).expanduser().absolute())
_SECONDS = _number(0.0, "seconds, 0 or more")
_DEADLINE = _number(0.1, "seconds, 0.1 or more")
_FLAG = _Kind("1 or 0", _flag)
_AUTH = _Kind("auto, token or open", _auth)
_KEEP_LABS = _Kind("restart, always or never", _keep_labs)
_NETWORKS = _Kind("addresses or networks with commas between them, such as 127.0.0.1 or 10.1.0.0/24,::1", _networks)
_POOL = _Kind("a private IPv4 network of /24 or larger, such as 198.18.0.0/16", _pool)


def _setting(kind: _Kind, default: Any, meaning: str) -> Any:
    return field(default=default, metadata={"kind": kind, "meaning": meaning})


def default_state_dir() -> Path:
    """The StateDirectory= of the systemd unit (systemd.exec(5), the first of several), otherwise one of the user."""
    from_systemd = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    return Path(from_systemd) if from_systemd else Path("~/.local/state/remote-lab").expanduser()


def default_image_dir() -> Path:
    """The folder all servers of the host share when root, the user's own cache otherwise."""
    if os.geteuid() == 0:
        return Path("/var/cache/remote-lab/images")
    return Path("~/.cache/remote-lab/images").expanduser()


@dataclass(frozen=True)
class Config:
    """The settings of one server; `from_environment()` reads them, a field `x_y` is `REMOTE_LAB_X_Y`."""

    state_dir: Path = field(
        default_factory=default_state_dir,
        metadata={"kind": _FOLDER, "meaning": "database, workspaces, boot logs and locks of this server"},
    )
    database_url: str | None = _setting(_TEXT, None, "SQLAlchemy URL; SQLite in the state folder when absent")
    slots: int = _setting(_integer(1, 64), 1, "labs at the same time")
    ahead: int = _setting(_integer(0, 64), 0, "labs that may be up beyond the slots: booted ahead for who waits")
    provider: str = _setting(_TEXT, "auto", "'auto' or a netlab provider: netns, clab, libvirt, ...")
    netlab: str | None = _setting(_TEXT, None, "the netlab executable of host providers; found when absent")
    image: str | None = _setting(_TEXT, None, "root file system of netns labs; built when absent")
    image_dir: Path = field(
        default_factory=default_image_dir,
        metadata={"kind": _FOLDER, "meaning": "where images lie, shared by the servers of this host"},
    )
    image_mirror: str | None = _setting(_TEXT, None, "Debian mirror to build images from; the host's when absent")
    management_pool: IPv4Network = _setting(
        _POOL, IPv4Network("198.18.0.0/16"), "addresses of lab devices, a /24 for each lab"
    )
    waiting_seconds: float = _setting(_DEADLINE, 600.0, "silence after which a waiting session ends")
    active_seconds: float = _setting(_DEADLINE, 300.0, "silence after which an active session ends")
    reaper_seconds: float = _setting(_DEADLINE, 5.0, "base interval of the reaper")
    lease_seconds: float = _setting(_SECONDS, 14400.0, "longest time a session may be active; 0: no limit")
    idle_seconds: float = _setting(_SECONDS, 1800.0, "an unreferenced lab is torn down after this")
    warm_seconds: float = _setting(_SECONDS, 0.0, "an idle lab stays so long for the next session; 0: it goes")
    boot_seconds: float = _setting(_DEADLINE, 1800.0, "deadline of a boot")
    teardown_seconds: float = _setting(_DEADLINE, 300.0, "deadline of a teardown")
    keep_labs: str = _setting(
        _KEEP_LABS,
        RESTART,
        "'restart': labs outlive crashes and restarts of the service, not its stop; 'always': also its stop; "
        "'never': not even a restart",
    )
    lab_memory_mib: int | None = _setting(
        _integer(64, 1 << 24), None, "memory of a lab; 3/4 of the host's, shared by the slots, when absent"
    )
    lab_processes: int = _setting(_integer(32, 4_000_000), 4096, "processes and threads of a lab")
    lab_disk_mib: int = _setting(_integer(16, 1 << 24), 1024, "what a lab may write; it lies in memory")
    spare_sandbox: bool = _setting(_FLAG, True, "a sandbox is kept ready for the next boot; it takes 70 to 80 MB")
    max_upload_bytes: int = _setting(_integer(1, 1 << 40), 10 * 1024 * 1024, "largest POST /lab")
    max_upload_files: int = _setting(_integer(1, 100_000), 200, "most files in one POST /lab")
    trust_uploads: bool = _setting(
        _FLAG, False, "every upload may be any program, also where no sandbox holds it: for hosts with one user"
    )
    history_days: int = _setting(
        _integer(0, 36_500), 90, "days for which it is kept who had which lab; 0: until the session has ended"
    )
    max_waiting: int = _setting(_integer(1, 10_000_000), 10_000, "most sessions in the queue")
    threads: int = _setting(_integer(4, 1024), 32, "requests served at the same time")
    auth: str = _setting(_AUTH, AUTO, "'token', 'open', or 'auto': open on loopback while there is no token")
    proxies: Networks | None = _setting(_NETWORKS, None, "proxies whose X-Forwarded-For names the client")
    token_waiting: int = _setting(_integer(1, 10_000_000), 1000, "most sessions of one token in the queue")
    token_boots: int = _setting(_integer(1, 10_000_000), 600, "most boots for one token in an hour")
    token_upload_bytes: int = _setting(_integer(1, 1 << 50), 1024**3, "most bytes that one token uploads in an hour")
    token_upload_files: int = _setting(_integer(1, 1 << 30), 20_000, "most files that one token uploads in an hour")
    stream_output: bool = field(
        default=False,
        metadata={
            "kind": _FLAG,
            "meaning": "what netlab prints goes into the log as it comes",
            "alias": "NEOPS_NETLAB_STREAM_OUTPUT",
        },
    )

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database_url or f"sqlite:///{self.state_dir / 'remote-lab.sqlite3'}"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Config:
        """Read all settings; an empty variable counts as absent. A few have an alias that other servers read.

        `environ` stands in for the process environment. Without it, a `.env` in the working directory fills in what
        the environment does not say.

        Raises SettingInvalid for the first value that cannot be used.
        """
        if environ is None:
            environ = _process_environment()
        known = {PREFIX + item.name.upper(): item for item in fields(cls)}
        values: dict[str, Any] = {}
        for variable, item in known.items():
            name = variable if environ.get(variable) else item.metadata.get("alias", variable)
            text = environ.get(name, "").strip()
            if text:
                kind = cast(_Kind, item.metadata["kind"])
                try:
                    values[item.name] = kind.parse(text)
                except ValueError:
                    raise SettingInvalid(name, text, kind.expected) from None
        return cls(**values)


@dataclass(frozen=True)
class Setting:
    """One setting as the environment has it, for people who wonder where a value comes from."""

    variable: str
    text: str | None
    """Its value; as it was written when that cannot be used; None when absent and without a default."""
    source: str
    """environment, .env or default."""
    meaning: str
    problem: str | None
    """What was expected, when the value cannot be used."""


def read_settings() -> list[Setting]:
    """All settings in the order of `Config`, also when some cannot be used."""
    sources = {"environment": dict(os.environ), ".env": _dotenv()}
    default = Config()
    found = []
    for item in fields(Config):
        variable, meaning = PREFIX + item.name.upper(), item.metadata["meaning"]
        kind = cast(_Kind, item.metadata["kind"])
        value, source, problem = getattr(default, item.name), "default", None
        for name, variables in sources.items():
            # As in `from_environment`: an empty variable of the environment hides what `.env` says.
            if variable not in variables:
                continue
            if text := variables[variable].strip():
                source = name
                try:
                    value = kind.parse(text)
                except ValueError:
                    value, problem = text, kind.expected
            break
        found.append(Setting(variable, _as_written(value), source, meaning, problem))
    return found


def _as_written(value: Any) -> str | None:
    match value:
        case None:
            return None
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.10g}"
        case _:
            return str(value)


def unknown_variables() -> list[str]:
    """The variables that look like settings and are none: typing errors, and what is meant for the client."""
    known = {PREFIX + item.name.upper() for item in fields(Config)}
    return sorted(name for name in {**_dotenv(), **os.environ} if name.startswith(PREFIX) and name not in known)


def _dotenv() -> dict[str, str]:
    from dotenv import dotenv_values

    return {key: value for key, value in dotenv_values(".env").items() if value is not None}


def _process_environment() -> dict[str, str]:
    return {**_dotenv(), **os.environ}
