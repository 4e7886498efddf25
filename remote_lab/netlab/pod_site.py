"""A pod per lab, for the provider `netns`: netlab and all nodes of a lab run in one sandbox."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Collection, Sequence
from ipaddress import IPv4Network
from pathlib import Path

from remote_lab.errors import ProviderUnavailable
from remote_lab.netlab import cgroups, features, firewall, management
from remote_lab.netlab.answers import plain, read_json
from remote_lab.netlab.connector import BegunCall, NetlabCall, NetlabResult, run_netlab
from remote_lab.netlab.device_state import MAX_OUTPUT_BYTES, MAX_TOTAL_BYTES, Collected, Said, Wanted
from remote_lab.netlab.image import Images
from remote_lab.netlab.limits import LabLimits
from remote_lab.netlab.netns.lab import LOGIN_KEY, PLAN
from remote_lab.netlab.pod import COMMANDS_INSIDE, PodFailed, Pods, SameNumber, enter_command, unknown
from remote_lab.netlab.rootless.commands import missing_requirements as rootless_requirements
from remote_lab.netlab.rootless.user_pods import UserPods
from remote_lab.netlab.site import ForegroundCall, LabPlace, NetlabRequest, SiteFailed
from remote_lab.netlab.warm_start import WarmStarts

logger = logging.getLogger(__name__)

PROVIDER = "netns"
_TOOLS = {"ip": "iproute2", "unshare": "util-linux", "nft": "nftables"}
_TOOLS_OF_USERS = {name: package for name, package in _TOOLS.items() if name != "nft"}
_CHECK_SECONDS = 10.0
_COLLECT_MARGIN_SECONDS = 5.0
_READ_SECONDS = 10.0
_MAX_CHECK_BYTES = 256 * 1024
_MAX_PLAN_BYTES = 4 * 2**20
_MAX_KEY_BYTES = 16 * 1024
_NUMBERS_TRIED = 5
_NODE_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NETNS_LAB = f"{COMMANDS_INSIDE}/netns-lab"
_PRIVATE_KEY = re.compile(r"-----BEGIN OPENSSH PRIVATE KEY-----\n[A-Za-z0-9+/=\n]+-----END OPENSSH PRIVATE KEY-----\n")
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
    is_rootless = os.geteuid() != 0
    missing = []
    needed = _TOOLS_OF_USERS if is_rootless else _TOOLS
    packages = sorted({needed[name] for name in management.missing_commands(needed)})
    if packages:
        missing.append(f"packages are missing: apt-get install {' '.join(packages)}")
    if not Path("/proc/self/ns/user").exists():
        missing.append("the kernel has no user namespaces")
    elif is_rootless:
        missing += rootless_requirements()
    return missing


def state_tag(state_dir: Path) -> str:
    """Return what marks the pods of one server: servers with different state folders never touch each other's."""
    return hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:16]


def _is_full(pid: int) -> bool:
    """Return whether the writable layers of a pod are full; what its code mounts over them may lie about that."""
    try:
        found = os.statvfs(f"/proc/{pid}/root/")
    except OSError:
        return False
    return found.f_blocks > 0 and (found.f_bavail == 0 or found.f_ffree == 0)


def _read_collected(text: str) -> Collected:
    """Read what `netns-lab collect` printed; SiteFailed for anything else, which code of the lab may have printed."""
    try:
        return {
            name: [Said(str(output), ok is True) for output, ok in said] for name, said in dict(read_json(text)).items()
        }
    except (ValueError, TypeError) as error:
        raise SiteFailed("the lab printed something else than what was collected") from error


class PodSite:
    """See `site.Site`.

    Args:
        images: gives the root file system.
        state_dir: of the server; its pods carry a hash of it.
        pool: where management networks are taken from.
        limits: of each lab.
        stream_output: what netlab says is logged line by line.
    """

    provider = PROVIDER

    def __init__(
        self,
        *,
        images: Images,
        state_dir: Path,
        pool: IPv4Network,
        limits: LabLimits,
        stream_output: bool = False,
    ) -> None:
        self._images = images
        self._pool = pool
        self._stream_output = stream_output
        self._limits = limits
        self._pods = (UserPods if os.geteuid() != 0 else Pods)(state_tag(state_dir), pool, limits)
        self._warm_starts = WarmStarts(self._pods, images, _ENVIRONMENT, self._files)
        self._missing_features: frozenset[str] | None = None

    def prepare(self) -> None:
        if missing := missing_requirements():
            raise ProviderUnavailable(f"Labs cannot run with the provider 'netns': {'; '.join(missing)}.")
        self._images.ensure()
        if missing_features := self._look_at_kernel():
            logger.info("This kernel has no %s: labs cannot use them", ", ".join(sorted(missing_features)))
        cgroups.prepare()
        try:
            self._pods.guard_host()
        except (firewall.FirewallFailed, management.IpFailed) as error:
            raise ProviderUnavailable(f"Labs cannot run with the provider 'netns': {error}.") from error

    def _look_at_kernel(self) -> frozenset[str]:
        """Look once: modules that are loaded later count from the next start on."""
        if self._missing_features is None:
            self._missing_features = features.missing_kernel_features()
        return self._missing_features

    def shutdown(self) -> None:
        self._warm_starts.without_spares(self._pods.lab_ids())
        self._pods.unguard_host()

    def open(self, place: LabPlace) -> None:
        try:
            if not self._warm_starts.open(place):
                self._start(place)
        except (
            PodFailed,
            firewall.FirewallFailed,
            management.IpFailed,
            management.NoFreeNetwork,
            OSError,
        ) as error:
            raise SiteFailed(str(error)) from error

    def _start(self, place: LabPlace) -> None:
        for _ in range(_NUMBERS_TRIED - 1):
            try:
                self._try_to_start(place)
            except SameNumber as error:
                logger.warning("Lab %s: %s; trying another one", place.lab_id, error)
            else:
                return
        self._try_to_start(place)

    def _try_to_start(self, place: LabPlace) -> None:
        network = self._pods.claim(place.lab_id)
        self._pods.start(place.lab_id, network, self._images.ensure(), place.directory, self._files(network))

    def _files(self, network: management.ManagementNetwork) -> dict[str, str]:
        own_address = f"{network.pod_address}/{network.subnet.prefixlen}"
        defaults = features.netlab_defaults(
            self._look_at_kernel(), own_address, forwarded_ssh_port=self._pods.forwarded_ssh_port
        )
        return {"etc/netlab/defaults.yml": defaults}

    def keep_spare(self) -> None:
        self._warm_starts.keep()

    def has_spare(self) -> bool:
        return self._warm_starts.is_there()

    def drop_spare(self) -> None:
        self._warm_starts.drop()

    def netlab_up(
        self, place: LabPlace, up: NetlabRequest, then: NetlabRequest, on_then: Callable[[], None]
    ) -> NetlabResult:
        try:
            begun = self._warm_starts.begin(place, self._pid(place), (up, then))
            return run_netlab(
                self._call(place, [], up, begun), cancel=up.cancel, on_line=up.on_line, on_capture=on_then
            )
        finally:
            self._warm_starts.renew()

    def reach(self, place: LabPlace, addresses: Collection[str]) -> None:
        try:
            self._pods.reach(place.lab_id, addresses)
        except PodFailed as error:
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
        return self._run(place, [f"{COMMANDS_INSIDE}/netlab", *request.arguments], request)

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
        call = self._call(place, enter_command(self._pid(place), command), request)
        return run_netlab(call, cancel=request.cancel, on_line=request.on_line)

    def _call(
        self, place: LabPlace, command: Sequence[str], request: NetlabRequest, begun: BegunCall | None = None
    ) -> NetlabCall:
        return NetlabCall(
            command=command,
            environment=_ENVIRONMENT,
            directory=Path("/"),
            log=None if request.quiet else place.log,
            seconds=request.seconds,
            capture=request.capture,
            capture_bytes=request.capture_bytes,
            grace_seconds=0.0,
            leader_only_waits=True,
            stream=self._stream_output and not request.quiet,
            begun=begun,
        )

    def _read(self, place: LabPlace, file: Path, max_bytes: int) -> str:
        """Return the beginning of a file of the lab's directory, empty when it cannot be read.

        It is read in the pod and with the rights of the pod: what the lab has put there instead, a link, a device or a
        mount, leads to nothing that the lab could not read by itself.
        """
        request = NetlabRequest((), _READ_SECONDS, capture=True, quiet=True, capture_bytes=max_bytes)
        try:
            return self._run(place, ["/usr/bin/head", "-c", str(max_bytes), f"/lab/{file}"], request).output
        except (SiteFailed, OSError):
            return ""

    def node_names(self, place: LabPlace) -> Collection[str]:
        try:
            names = [node["name"] for node in read_json(self._read(place, PLAN, _MAX_PLAN_BYTES))["nodes"]]
        except (ValueError, KeyError, TypeError):
            return ()  # netlab will say what is wrong with it, or the lab has made it unreadable for itself
        return [name for name in names if isinstance(name, str) and _NODE_NAME.fullmatch(name)][: management.MAX_NODES]

    def login_key(self, place: LabPlace) -> str | None:
        found = _PRIVATE_KEY.fullmatch(self._read(place, LOGIN_KEY, _MAX_KEY_BYTES))
        return None if found is None else found[0]

    def exceeded(self, place: LabPlace) -> list[str]:
        found = self._pods.exceeded(place.lab_id)
        pid = next((pod.pid for pod in self._pods.find(place.lab_id) if pod.pid is not None), None)
        return [*found, self._limits.disk_sentence] if pid is not None and _is_full(pid) else found

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
        result = self._run(place, [_NETNS_LAB, "collect", json.dumps(argument)], request)
        if not result.succeeded:
            how = "took too long" if result.exit_status is None else f"ended with status {result.exit_status}"
            raise SiteFailed(f"netns-lab collect {how}")
        return _read_collected(result.output)

    def close(self, place: LabPlace, *, deadline: float) -> str | None:
        try:
            return self._pods.end(place.lab_id, deadline=deadline)
        finally:
            self._warm_starts.forget(place.lab_id)
            self._warm_starts.renew()  # a boot may have taken the spare and not come as far as `netlab_up`

    def vanished(self, place: LabPlace) -> str | None:
        found = self._pods.find(place.lab_id)
        if not any(pod.pid for pod in found):
            return "; ".join(["its sandbox is gone", *self._pods.exceeded(place.lab_id)])
        if not any(pod.pid and pod.claim for pod in found):
            return "its management network interface is gone"
        return None

    def probe(self, place: LabPlace) -> str | None:
        if why := self.vanished(place):
            return why
        request = NetlabRequest((), _CHECK_SECONDS, capture=True, quiet=True, capture_bytes=_MAX_CHECK_BYTES)
        try:
            result = self._run(place, [_NETNS_LAB, "check"], request)
            problems = read_json(result.output) if result.succeeded else None
        except (SiteFailed, OSError, ValueError) as error:
            return f"its nodes cannot be checked: {error}"
        if not isinstance(problems, list):
            return f"its nodes cannot be checked: the check ended with {result.ending.value} {result.exit_status}"
        return plain("; ".join(str(problem) for problem in problems))[:1000] or None

    def dead_nodes(self, place: LabPlace, names: Collection[str]) -> list[str]:
        return sorted(self._pods.missing_nodes(place.lab_id, names))

    def orphans(self, known_lab_ids: Collection[str]) -> list[str]:
        self._pods.look_after_host()
        return unknown(self._warm_starts.without_spares(self._pods.lab_ids()), known_lab_ids)

    def end_orphan(self, lab_id: str, *, deadline: float) -> str | None:
        return self._pods.end(lab_id, deadline=deadline)
