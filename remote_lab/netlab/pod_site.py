"""A pod per lab, for the provider `netns`: netlab and all nodes of a lab run in one sandbox."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Collection, Sequence
from ipaddress import IPv4Network
from pathlib import Path

from remote_lab.errors import ProviderUnavailable
from remote_lab.netlab import features, management
from remote_lab.netlab.connector import NetlabCall, NetlabResult, run_netlab
from remote_lab.netlab.device_state import MAX_OUTPUT_BYTES, MAX_TOTAL_BYTES, Collected, Said, Wanted
from remote_lab.netlab.image import Images
from remote_lab.netlab.lab_files import read_lab_file
from remote_lab.netlab.netns.lab import LOGIN_KEY, PLAN
from remote_lab.netlab.pod import COMMANDS_INSIDE, PodFailed, Pods, enter_command, unknown
from remote_lab.netlab.site import ForegroundCall, LabPlace, NetlabRequest, SiteFailed

logger = logging.getLogger(__name__)

PROVIDER = "netns"
_TOOLS = {"ip": "iproute2", "nsenter": "util-linux", "unshare": "util-linux"}
_CHECK_SECONDS = 10.0
_COLLECT_MARGIN_SECONDS = 5.0
_MAX_PLAN_BYTES = 4 * 2**20
_MAX_KEY_BYTES = 16 * 1024
_MAX_NODES = 256
"""No management network has room for more."""
_PRIVATE_KEY = re.compile(rb"-----BEGIN OPENSSH PRIVATE KEY-----\n[A-Za-z0-9+/=\n]+-----END OPENSSH PRIVATE KEY-----\n")
_ENVIRONMENT = {
    "PATH": f"{COMMANDS_INSIDE}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "COLUMNS": "160",
    "PYTHONUNBUFFERED": "1",
}


def missing_requirements() -> list[str]:
    """Return what keeps this host from running pods, as sentences; empty when nothing does."""
    missing = []
    if os.geteuid() != 0:
        missing.append("the server does not run as root (start it with sudo or as a system service)")
    packages = sorted({_TOOLS[name] for name in management.missing_commands(_TOOLS)})
    if packages:
        missing.append(f"packages are missing: apt-get install {' '.join(packages)}")
    if not Path("/proc/self/ns/user").exists():
        missing.append("the kernel has no user namespaces")
    return missing


def state_tag(state_dir: Path) -> str:
    """Return what marks the pods of one server: servers with different state folders never touch each other's."""
    return hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:16]


def _read_collected(text: str) -> Collected:
    """Read what `netns-lab collect` printed; SiteFailed for anything else, which code of the lab may have printed."""
    try:
        return {
            name: [Said(str(output), ok is True) for output, ok in said]
            for name, said in dict(json.loads(text)).items()
        }
    except (ValueError, TypeError, RecursionError) as error:
        raise SiteFailed("the lab printed something else than what was collected") from error


class PodSite:
    """See `site.Site`.

    Args:
        images: gives the root file system.
        state_dir: of the server; its pods carry a hash of it.
        pool: where management networks are taken from.
        stream_output: what netlab says is logged line by line.
    """

    provider = PROVIDER

    def __init__(self, *, images: Images, state_dir: Path, pool: IPv4Network, stream_output: bool = False) -> None:
        self._images = images
        self._pool = pool
        self._stream_output = stream_output
        self._pods = Pods(state_tag(state_dir), pool)
        self._missing_features: frozenset[str] | None = None

    def prepare(self) -> None:
        if missing := missing_requirements():
            raise ProviderUnavailable(f"Labs cannot run with the provider 'netns': {'; '.join(missing)}.")
        self._images.ensure()
        if missing_features := self._look_at_kernel():
            logger.info("This kernel has no %s: labs cannot use them", ", ".join(sorted(missing_features)))
        self._set_leak_guard()

    def _look_at_kernel(self) -> frozenset[str]:
        """Look once: modules that are loaded later count from the next start on."""
        if self._missing_features is None:
            self._missing_features = features.missing_kernel_features()
        return self._missing_features

    def _set_leak_guard(self) -> None:
        try:
            management.set_leak_guard(self._pool)
        except management.IpFailed as error:
            raise ProviderUnavailable(f"Labs cannot run with the provider 'netns': {error}.") from error

    def shutdown(self) -> None:
        management.remove_leak_guard(self._pool)

    def open(self, place: LabPlace) -> None:
        try:
            management.set_leak_guard(self._pool)
            network = self._pods.claim(place.lab_id)
            own_address = f"{network.pod_address}/{network.subnet.prefixlen}"
            files = {"etc/netlab/defaults.yml": features.netlab_defaults(self._look_at_kernel(), own_address)}
            self._pods.start(place.lab_id, network, self._images.ensure(), place.directory, files)
        except (PodFailed, management.IpFailed, management.NoFreeNetwork, OSError) as error:
            raise SiteFailed(str(error)) from error

    def topology_arguments(self, place: LabPlace) -> tuple[str, ...]:
        numbers = [pod.number for pod in self._pods.find(place.lab_id)]
        if not numbers:
            raise SiteFailed("its sandbox is gone")
        subnet = management.subnet_of(self._pool, numbers[0])
        # On the command line, because that wins over whatever the topology says. Addresses count from the node's id.
        forced = (f"addressing.mgmt.ipv4={subnet}", "addressing.mgmt.start=0")
        settings = [argument for setting in forced for argument in ("-s", setting)]
        return ("-p", PROVIDER, *settings, f"./{place.topology}")

    def netlab(self, place: LabPlace, request: NetlabRequest) -> NetlabResult:
        return self._run(place, ["netlab", *request.arguments], request)

    def foreground_call(self, place: LabPlace, arguments: Sequence[str]) -> ForegroundCall:
        shown = {name: os.environ[name] for name in ("TERM", "COLORTERM", "NO_COLOR") if name in os.environ}
        command = enter_command(self._pid(place), [f"{COMMANDS_INSIDE}/netlab", *arguments])
        return ForegroundCall(tuple(command), _ENVIRONMENT | shown, Path("/"))

    def _pid(self, place: LabPlace) -> int:
        pid = next((pod.pid for pod in self._pods.find(place.lab_id) if pod.pid is not None), None)
        if pid is None:
            raise SiteFailed("its sandbox is gone")
        return pid

    def _run(self, place: LabPlace, command: list[str], request: NetlabRequest) -> NetlabResult:
        pid = self._pid(place)
        call = NetlabCall(
            command=enter_command(pid, [f"{COMMANDS_INSIDE}/{command[0]}", *command[1:]]),
            environment=_ENVIRONMENT,
            directory=Path("/"),
            log=None if request.quiet else place.log,
            seconds=request.seconds,
            capture=request.capture,
            grace_seconds=0.0,
            leader_only_waits=True,
            stream=self._stream_output and not request.quiet,
        )
        return run_netlab(call, cancel=request.cancel, on_line=request.on_line)

    def node_names(self, place: LabPlace) -> Collection[str]:
        content = read_lab_file(place.directory, str(PLAN), _MAX_PLAN_BYTES)
        try:
            names = [node["name"] for node in json.loads(content or b"")["nodes"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            return ()  # netlab will say what is wrong with it, or the lab has made it unreadable for itself
        return [name for name in names if isinstance(name, str)][:_MAX_NODES]

    def login_key(self, place: LabPlace) -> str | None:
        content = read_lab_file(place.directory, str(LOGIN_KEY), _MAX_KEY_BYTES)
        found = _PRIVATE_KEY.fullmatch(content or b"")
        return None if found is None else found[0].decode("ascii")

    def collect(self, place: LabPlace, wanted: Wanted, *, seconds: float) -> Collected:
        commands = list(dict.fromkeys(command for asked in wanted.values() for command in asked))
        indexes = {command: index for index, command in enumerate(commands)}
        argument = {
            "commands": commands,
            "nodes": {name: [indexes[command] for command in asked] for name, asked in wanted.items()},
            "seconds": seconds,
            "output_bytes": MAX_OUTPUT_BYTES,
            "total_bytes": MAX_TOTAL_BYTES,
        }
        request = NetlabRequest((), seconds=seconds + _COLLECT_MARGIN_SECONDS, capture=True, quiet=True)
        result = self._run(place, ["netns-lab", "collect", json.dumps(argument)], request)
        if not result.succeeded:
            how = "took too long" if result.exit_status is None else f"ended with status {result.exit_status}"
            raise SiteFailed(f"netns-lab collect {how}")
        return _read_collected(result.output)

    def close(self, place: LabPlace, *, deadline: float) -> str | None:
        return self._pods.end(place.lab_id, deadline=deadline)

    def vanished(self, place: LabPlace) -> str | None:
        found = self._pods.find(place.lab_id)
        if not any(pod.pid for pod in found):
            return "its sandbox is gone"
        if not any(pod.pid and pod.claim for pod in found):
            return "its management network interface is gone"
        return None

    def probe(self, place: LabPlace) -> str | None:
        if why := self.vanished(place):
            return why
        request = NetlabRequest((), seconds=_CHECK_SECONDS, capture=True, quiet=True)
        try:
            result = self._run(place, ["netns-lab", "check"], request)
            problems = json.loads(result.output) if result.succeeded else None
        except (SiteFailed, OSError, ValueError) as error:
            return f"its nodes cannot be checked: {error}"
        if not isinstance(problems, list):
            return f"its nodes cannot be checked: the check ended with {result.ending.value} {result.exit_status}"
        return "; ".join(str(problem) for problem in problems)[:1000] or None

    def orphans(self, known_lab_ids: Collection[str]) -> list[str]:
        return unknown(self._pods.lab_ids(), known_lab_ids)

    def end_orphan(self, lab_id: str, *, deadline: float) -> str | None:
        return self._pods.end(lab_id, deadline=deadline)
