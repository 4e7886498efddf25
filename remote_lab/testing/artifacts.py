"""What is kept of a lab when its test fails: boot log, devices and what they say, in a folder of the test.

The test has failed for a reason of its own, which nothing in here may hide: what cannot be had becomes a line of the
summary. When that is done is `failures.py`'s matter.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from remote_lab.client import DeviceInfoDto, RemoteLabClient

SUMMARY = "summary.txt"
_NAME_CHARS_MAX = 100
_RESERVED = frozenset({SUMMARY, "boot.log", "devices.json"})


def save(client: RemoteLabClient, devices: Sequence[DeviceInfoDto] | None, nodeid: str, folder: Path) -> Path:
    """Save what there is to know about a test's lab; return the folder of this failure, a new one below `folder`.

    `devices` are those the test got; None asks the server which there are, as after a setup that failed half way.

    1. Make the folder. Its name is the test's, with what no path should hold replaced, and a digest of the whole; the
       second failure of a test gets `-2`.
    2. Write `boot.log`, `devices.json` and, in a folder for each device, a file for each of its outputs.
    3. Write `summary.txt`: the test, its lab, and what could not be saved.

    Raises OSError when the folder cannot be made or the summary not be written, and nothing else.
    """
    own = _make_folder(folder, nodeid)
    summary = [
        f"test      {_line(nodeid)}",
        f"failed    {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
        f"server    {_line(re.sub(r'//[^/]*@', '//', client.base_url))}",
        f"session   {_line(client.session_id[:8] or 'ended')}",
    ]

    # Imported here: whoever has a client has requests.
    from requests import ConnectionError as NoConnection

    is_gone = False

    def attempt(what: str, step: Callable[[], str]) -> None:
        nonlocal is_gone
        if is_gone:
            summary.append(f"{what:<10}not saved: the server is gone")
            return
        try:
            summary.append(f"{what:<10}{step()}")
        except Exception as error:  # noqa: BLE001  whatever is wrong with lab or server, the other steps are worth a try
            summary.append(f"{what:<10}not saved: {_line(str(error)) or type(error).__name__}")
            # Each further request would be tried several times.
            is_gone = isinstance(error, NoConnection)

    attempt("topology", lambda: _line(str(client.status().topology or "no lab is running")))
    attempt("boot log", lambda: _save_log(client, own))
    attempt("devices", lambda: _save_devices(client.devices() if devices is None else devices, own))
    attempt("state", lambda: _save_state(client.device_state(), own))
    _write(own / SUMMARY, "\n".join(summary) + "\n")
    return own


def _save_log(client: RemoteLabClient, folder: Path) -> str:
    _write(folder / "boot.log", client.log())
    return "boot.log"


def _save_devices(devices: Iterable[DeviceInfoDto], folder: Path) -> str:
    devices = list(devices)
    said = [{"name": device.name, "raw": device.raw} for device in devices]
    _write(folder / "devices.json", json.dumps(said, indent=2, ensure_ascii=False, default=str) + "\n")
    return f"devices.json: {', '.join(_line(device.name) for device in devices) or 'none'}"


def _save_state(devices: Iterable[dict[str, Any]], folder: Path) -> str:
    """Write what the devices say; `devices` as the server answers them, see `RemoteLabClient.device_state`."""
    lines: list[str] = []
    for device in devices:
        own = _free(folder, _slug(str(device["name"])))
        own.mkdir()
        for output in device["outputs"]:
            path = _free(own, _slug(str(output["command"])), ".txt")
            _write(path, str(output["output"]))
            failed = "" if output.get("ok", True) else " (the command failed)"
            lines.append(f"{path.relative_to(folder)}: {_line(str(output['command']))}{failed}")
        if not device["outputs"]:
            lines.append(f"{_line(str(device['name']))}: nothing is asked of this kind of device")
    return "\n          ".join(lines) or "no device says anything"


def _make_folder(folder: Path, nodeid: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    # Different tests must not meet in one name, and parametrised ids hold anything.
    digest = hashlib.sha256(nodeid.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    name = f"{_slug(nodeid)}-{digest}"
    for number in itertools.count(1):
        own = folder / (name if number == 1 else f"{name}-{number}")
        try:
            own.mkdir()
        except FileExistsError:
            continue
        return own
    raise AssertionError("unreachable")


def _free(folder: Path, name: str, suffix: str = "") -> Path:
    """Return a path that is not there yet; file systems that know no case are thought of."""
    taken = {path.name.casefold() for path in folder.iterdir()} | _RESERVED
    candidates = (f"{name}{'' if number == 1 else f'-{number}'}{suffix}" for number in itertools.count(1))
    return folder / next(candidate for candidate in candidates if candidate.casefold() not in taken)


def _slug(text: str) -> str:
    """Return the text as one name of a path: readable, never empty or hidden, bounded in length."""
    plain = re.sub(r"[^A-Za-z0-9_.=]+", "-", text).strip("-.") or "unnamed"
    if len(plain) <= _NAME_CHARS_MAX:
        return plain
    half = _NAME_CHARS_MAX // 2
    return f"{plain[:half]}--{plain[-half:]}"


def _line(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text).strip()


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
