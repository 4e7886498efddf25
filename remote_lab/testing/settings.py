"""What a run was told about its lab: a pytest option for every variable, and how the three sources are read.

An option beats the environment, the environment beats the `.env` of the rootdir. The first source that has a name
decides, also when it says nothing: `--remote-lab-url=` asks for local mode where REMOTE_LAB_URL is set. Every pytest
run imports this module, so it needs nothing that pytest has not imported already; what is said about a secret never
has its value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

PREFIX = "REMOTE_LAB_"

HEARTBEAT_SECONDS = 60.0


class _Unusable(Exception):
    """A value that cannot be used."""

    def __init__(self, shown: str, expected: str) -> None:
        super().__init__()
        self.shown = shown
        """The value with a sign before it, "" for a secret."""
        self.expected = expected


# A dataclass would cost every pytest run 2 ms.
class Settings(NamedTuple):
    """The settings of a run; None where nothing was said and the client has a default of its own."""

    url: str | None
    """Address of the server, maybe with a password in it; None: local mode."""
    token: str | None
    request_timeout: float | None
    session_timeout: float | None
    acquisition_timeout: float | None
    heartbeat_seconds: float
    purpose: str | None
    ci_job: str | None
    session_id: str | None
    """A session that somebody else opened and ends."""
    join: bool | None
    """Whether local mode uses a server that runs on this machine; None where nothing was said."""
    required: bool
    """Tests that need a lab fail where they would be skipped."""
    artifacts: Path | None
    """Folder for what is saved when a test fails."""
    hold_seconds: float
    """How long a lab is kept after a failure; 0: not at all."""
    environment: Mapping[str, str]
    """The process's environment with the REMOTE_LAB_ variables of `.env`, for a server that is started here."""
    first_topology: Path | None = None
    """What the first lab test of the run will acquire; said by the run itself."""

    def __repr__(self) -> str:
        """What a traceback may show: neither token nor password, nor the session that whoever knows it may use."""
        return f"<Settings of {self.shown_url}>"

    @property
    def shown_url(self) -> str:
        """The address as people may see it: without a user and password, "local" without a server."""
        return _shown(self.url) if self.url else "local"


def add_options(parser: pytest.Parser) -> None:
    """Register the options, `--remote-lab-NAME` for the variable REMOTE_LAB_NAME."""
    group = parser.getgroup("remote-lab", "remote lab (each option beats its variable, that beats .env)")
    for name, (metavar, text, _) in _OPTIONS.items():
        option, variable = _option(name), PREFIX + name.upper()
        help_text = f"{text} [{variable}]"
        if metavar is None:
            group.addoption(option, dest=_dest(name), action="store_true", default=None, help=help_text)
        else:
            group.addoption(option, dest=_dest(name), default=None, metavar=metavar, help=help_text)


def settings_of(config: pytest.Config) -> Settings:
    """Return the settings of a run, read once; raise pytest.UsageError for a value that cannot be used."""
    if _KEY not in config.stash:
        config.stash[_KEY] = _read(config)
    return config.stash[_KEY]


_KEY = pytest.StashKey[Settings]()


def _read(config: pytest.Config) -> Settings:
    from_file = _dotenv(config.rootpath / ".env")
    environment = from_file | os.environ
    values: dict[str, Any] = {}
    for name, (_, _, read) in _OPTIONS.items():
        source, place = PREFIX + name.upper(), ""
        given = config.getoption(_dest(name), default=None)
        if given is not None:
            source, text = _option(name), "yes" if given is True else str(given)
        else:
            text = environment.get(source, "")
            place = "" if source in os.environ else f" in {config.rootpath / '.env'}"
        try:
            values[name] = read(text.strip()) if text.strip() else None
        except _Unusable as error:
            message = f"{source}{error.shown}{place} cannot be used: expected {error.expected}."
            raise pytest.UsageError(message) from None
    if values["session_id"] and not values["url"]:
        raise pytest.UsageError(
            f"{PREFIX}SESSION_ID or {_option('session_id')} is set, but no server that has the session: "
            f"set {PREFIX}URL or {_option('url')} as well."
        )
    if values["token"] and _has_user_info(values["url"] or ""):
        raise pytest.UsageError(
            f"There is both a token and a user in the URL of {_shown(values['url'])}, but a request can "
            f"carry one of them: take away {PREFIX}TOKEN ({_option('token')}) or the user in {PREFIX}URL."
        )
    if values["join"] is not None:
        environment = environment | {f"{PREFIX}JOIN": "1" if values["join"] else "0"}
    artifacts = values["artifacts"]
    return Settings(
        **{name: values[name] for name in _AS_READ},
        heartbeat_seconds=values["heartbeat"] or HEARTBEAT_SECONDS,
        required=bool(values["required"]),
        artifacts=None if artifacts is None else config.invocation_params.dir / artifacts,
        hold_seconds=values["hold"] or 0.0,
        environment=environment,
    )


def _dotenv(path: Path) -> dict[str, str]:
    """Return the REMOTE_LAB_ variables of a file; {} when there is none."""
    try:
        mentions_us = PREFIX.encode() in path.read_bytes()
    except OSError:
        return {}
    if not mentions_us:
        return {}
    # Imported here: most suites have no such file and need not pay for it.
    from dotenv import dotenv_values

    return {name: value or "" for name, value in dotenv_values(path).items() if name.startswith(PREFIX)}


def _unusable(value: str, expected: str) -> _Unusable:
    return _Unusable(f"={value!r}", expected)


def _read_url(text: str) -> str:
    if not re.fullmatch(r"https?://[^/?#\s]+(/\S*)?", text):
        raise _unusable(_shown(text), "the address of a server, like http://lab-host:8000")
    return text


def _read_token(text: str) -> str:
    if not re.fullmatch(r"[!-~]+", text):
        raise _Unusable("", "printable ASCII without spaces (its value is not shown)")
    return text


def _read_seconds(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d*)?|\.\d+", text) or float(text) == 0:
        raise _unusable(text, "a number of seconds above 0")
    return float(text)


def _read_duration(text: str) -> float:
    from remote_lab import durations

    try:
        return durations.parse_seconds(text)
    except ValueError:
        raise _unusable(text, durations.EXPECTED) from None


def _read_label(text: str) -> str:
    if len(text) > 200 or not text.isprintable():
        raise _unusable(text, "at most 200 printable characters")
    return text


def _read_flag(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on", "t", "y"):
        return True
    if text.lower() in ("0", "false", "no", "off", "f", "n"):
        return False
    raise _unusable(text, "yes or no")


def _read_folder(text: str) -> Path:
    path = Path(text).expanduser()
    if path.exists() and not path.is_dir():
        raise _unusable(text, "a folder, and this is a file")
    return path


def _has_user_info(url: str) -> bool:
    return url != _shown(url)


def _shown(url: str) -> str:
    from remote_lab.urls import without_user_info

    return without_user_info(url)


def _option(name: str) -> str:
    return "--remote-lab-" + name.replace("_", "-")


def _dest(name: str) -> str:
    return f"remote_lab_{name}"


_AS_READ = (
    "url",
    "token",
    "request_timeout",
    "session_timeout",
    "acquisition_timeout",
    "purpose",
    "ci_job",
    "session_id",
    "join",
)

_OPTIONS: dict[str, tuple[str | None, str, Callable[[str], Any]]] = {
    "url": ("URL", "server that has the labs; without one, labs run on this machine", _read_url),
    "token": ("TOKEN", "token for the server; better set its variable, options can be seen by everybody", _read_token),
    "request_timeout": ("SECONDS", "longest time for a short request (default 30)", _read_seconds),
    "session_timeout": ("SECONDS", "longest time in the queue (default 600)", _read_seconds),
    "acquisition_timeout": ("SECONDS", "longest time until a lab is up (default 600)", _read_seconds),
    "heartbeat": ("SECONDS", "interval of the sign of life that keeps the session (default 60)", _read_seconds),
    "purpose": ("TEXT", "what the lab is for, shown to those who wait for it", _read_label),
    "ci_job": ("ID", "CI job that the session belongs to (default: recognised)", _read_label),
    "session_id": ("ID", "use this session and leave it open, as under 'remote-lab run'", _read_label),
    "join": ("yes|no", "without a URL, use the server that runs on this machine (default yes)", _read_flag),
    "required": (None, "fail tests that need a lab where this machine cannot run one, instead of skipping", _read_flag),
    "artifacts": ("DIR", "save boot log and state of the devices here when a test fails", _read_folder),
    "hold": ("TIME", "keep the lab for this long after a failure, like 15m, and say how to log in", _read_duration),
}
"""Of each setting: metavar of its option (None: a flag), what it means, and how its text is read."""
