"""Labs straight on the host, for providers that need its Docker or libvirt: plain netlab commands, nothing else.

Uploaded topologies run as this server's user there: such a server trusts its users.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from remote_lab.errors import ProviderUnavailable
from remote_lab.netlab.connector import NetlabCall, NetlabResult, run_netlab
from remote_lab.netlab.device_state import Collected, Command, Said, Wanted
from remote_lab.netlab.site import ForegroundCall, LabPlace, NetlabRequest, SiteFailed

logger = logging.getLogger(__name__)

_SNAPSHOT = "netlab.snapshot.pickle"
_LOCK = "netlab.lock"
_PROBE_SECONDS = 30.0
_CALLS_AT_ONCE = 4
_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
_HEADER = re.compile(r"^={80}\n(\S+): executing .*\n={80}\n", re.MULTILINE)


def find_netlab(wanted: str | None) -> str | None:
    """Return the netlab executable: the wanted one, else the one beside this Python, else the one on PATH."""
    if wanted:
        return shutil.which(wanted)
    beside = Path(sys.executable).with_name("netlab")
    return str(beside) if os.access(beside, os.X_OK) else shutil.which("netlab")


class HostSite:
    """See `site.Site`.

    Args:
        provider: the netlab provider.
        netlab: the executable that was asked for; None: found by itself.
        stream_output: what netlab says is logged line by line.
    """

    def __init__(self, *, provider: str, netlab: str | None, stream_output: bool = False) -> None:
        self._stream_output = stream_output
        self.provider = provider
        self._wanted = netlab
        self._netlab = find_netlab(netlab)

    def prepare(self) -> None:
        if self._netlab is None:
            raise ProviderUnavailable(
                f"Labs cannot run with the provider {self.provider!r}: netlab is not installed "
                f"({self._wanted or 'beside the server or on PATH'}). Install it with `pip install networklab`, "
                "or name it with REMOTE_LAB_NETLAB."
            )

    def shutdown(self) -> None:
        """Nothing was set up."""

    def open(self, place: LabPlace) -> None:
        """Nothing to make room for: netlab's multilab keeps labs apart."""

    def reach(self, place: LabPlace, addresses: Collection[str]) -> None:
        """Nothing to do: they are, as netlab makes them."""

    def topology_arguments(self, place: LabPlace) -> tuple[str, ...]:
        multilab = ("--plugin", "multilab", "-s", f"defaults.multilab.id={place.slot}")
        return ("-p", self.provider, *multilab, f"./{place.topology}")

    def foreground_call(self, place: LabPlace, arguments: Sequence[str]) -> ForegroundCall:
        if self._netlab is None:
            raise SiteFailed("netlab is not installed")
        if not (place.directory / _SNAPSHOT).exists():
            raise SiteFailed("netlab has no record of it")
        return ForegroundCall((self._netlab, *arguments), os.environ, place.directory)

    def netlab(self, place: LabPlace, request: NetlabRequest) -> NetlabResult:
        if self._netlab is None:
            raise SiteFailed("netlab is not installed")
        call = NetlabCall(
            command=(self._netlab, *request.arguments),
            environment={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "160"},
            directory=place.directory,
            log=None if request.quiet else place.log,
            seconds=request.seconds,
            capture=request.capture,
            stream=self._stream_output and not request.quiet,
        )
        return run_netlab(call, cancel=request.cancel, on_line=request.on_line)

    def netlab_up(
        self, place: LabPlace, up: NetlabRequest, then: NetlabRequest, on_then: Callable[[], None]
    ) -> NetlabResult:
        began = time.monotonic()
        result = self.netlab(place, up)
        if not result.succeeded:
            return result
        on_then()
        return self.netlab(place, replace(then, seconds=max(up.seconds - (time.monotonic() - began), 0.0)))

    def keep_spare(self) -> None:
        """Nothing to do: netlab starts on the host, with the files of its lab."""

    def has_spare(self) -> bool:
        return False

    def drop_spare(self) -> None:
        """There is none."""

    def node_names(self, place: LabPlace) -> Collection[str]:
        return ()  # containerlab and Vagrant say what they begin with, not what is up

    def login_key(self, place: LabPlace) -> str | None:
        return None

    def collect(self, place: LabPlace, wanted: Wanted, *, seconds: float) -> Collected:
        """One `netlab exec` for each command, for all devices that are asked it; a few of them at once."""
        deadline = time.monotonic() + seconds
        names: dict[Command, list[str]] = {}
        for name, commands in wanted.items():
            for command in commands if _NAME.fullmatch(name) else ():
                names.setdefault(command, []).append(name)
        with ThreadPoolExecutor(_CALLS_AT_ONCE) as threads:
            answers = threads.map(lambda item: self._ask(place, item[0], item[1], deadline), names.items())
            said = dict(zip(names, answers, strict=True))
        return {name: [said[command][name] for command in wanted[name]] for name in wanted if _NAME.fullmatch(name)}

    def _ask(self, place: LabPlace, command: Command, names: Sequence[str], deadline: float) -> dict[str, Said]:
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            return dict.fromkeys(names, Said("not asked: the others took all the time there is\n", ok=False))
        arguments = ("exec", "--header", ",".join(names), *command)
        request = NetlabRequest(arguments, seconds=seconds, capture=True, quiet=True)
        try:
            result = self.netlab(place, request)
        except (OSError, SiteFailed) as error:
            return dict.fromkeys(names, Said(f"not asked: {error}\n", ok=False))
        texts = dict(_by_node(result.output))
        # `netlab exec` does not tell whether a command succeeded (26.10, netsim/cli/exec.py): one that fails there says
        # so on standard error, and nothing else.
        return {name: Said(text := texts.get(name, ""), result.succeeded and bool(text.strip())) for name in names}

    def exceeded(self, place: LabPlace) -> list[str]:
        return []

    def close(self, place: LabPlace, *, deadline: float) -> str | None:
        """Ask netlab, then force it; half of the time that is left is for each try.

        A netlab that is still at work there was started by a server that has died since: it is ended first.
        """
        _end_processes_in(place.directory)
        if not (place.directory / _SNAPSHOT).exists():
            return None  # netlab never got as far as starting anything
        for force in ((), ("--force",)):
            seconds = max((deadline - time.monotonic()) / (1 if force else 2), 0.1)
            request = NetlabRequest(("down", "--cleanup", *force), seconds=seconds)
            try:
                result = self.netlab(place, request)
            except (OSError, SiteFailed) as error:
                return f"netlab down cannot be run: {error}"
            # Where Docker does not answer, netlab stops nothing and ends with status 0 all the same (26.10,
            # netsim/cli/down.py); that it removed the snapshot says that it went to its end.
            if result.succeeded and not (place.directory / _SNAPSHOT).exists():
                if force:
                    logger.warning(
                        "netlab down of lab %s worked only by force: what it started may still be there, see %s",
                        place.lab_id,
                        place.log,
                    )
                (place.directory / _LOCK).unlink(missing_ok=True)
                return None
        return f"netlab down --cleanup --force ended with {result.ending.value} {result.exit_status or ''}".strip()

    def probe(self, place: LabPlace) -> str | None:
        if not (place.directory / _SNAPSHOT).exists():
            return "netlab has no record of it"
        request = NetlabRequest(("status", "--format", "json"), seconds=_PROBE_SECONDS, capture=True, quiet=True)
        try:
            result = self.netlab(place, request)
            status = json.loads(result.output)
            dead = [name for name, node in status["nodes"].items() if not _lives(node)]
        except (OSError, SiteFailed, ValueError, KeyError, TypeError, AttributeError) as error:
            return f"netlab status does not know it: {type(error).__name__}: {error}"
        return f"not running: {', '.join(dead)}" if dead else None

    def vanished(self, place: LabPlace) -> str | None:
        return None  # only netlab could tell

    def dead_nodes(self, place: LabPlace, names: Collection[str]) -> list[str]:
        return []  # only netlab could tell

    def orphans(self, known_lab_ids: Collection[str]) -> list[str]:
        return []  # nothing on the host says which lab a container or a virtual machine belongs to

    def end_orphan(self, lab_id: str, *, deadline: float) -> str | None:
        return None


def _by_node(text: str) -> Iterator[tuple[str, str]]:
    """Cut what `netlab exec --header` printed into pairs of a node and what it said."""
    _, *parts = _HEADER.split(text)
    for name, said in zip(parts[::2], parts[1::2], strict=True):
        yield name, said.removesuffix("\n")


def _end_processes_in(directory: Path) -> None:
    """Kill whatever works in a folder: netlab and what it started, but for what Docker or libvirt run for it."""
    # Of plain strings: a host of containers has thousands of processes, and somebody waits for its slot.
    for name in os.listdir("/proc"):
        with suppress(OSError):
            if name.isdigit() and f"{os.readlink(f'/proc/{name}/cwd')}/".startswith(f"{directory}/"):  # noqa: PTH115
                logger.info("Ending process %s, which an earlier server left in %s", name, directory)
                os.kill(int(name), signal.SIGKILL)


def _lives(node: dict[str, str]) -> bool:
    # Docker: `Up 3 minutes`; libvirt: `running`; unmanaged nodes are not ours.
    state = node.get("status", "").lower()
    return node.get("provider") == "unmanaged" or state.startswith(("up", "running"))
