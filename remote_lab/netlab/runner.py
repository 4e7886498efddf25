"""Boots, probes and stops labs: one sequence of steps for every provider.

The caller sees labs, places and devices; what differs between a pod and the bare host is behind `site.Site`.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from ipaddress import IPv4Network
from pathlib import Path
from subprocess import SubprocessError

from remote_lab.errors import LabNotRunning, LabTeardownFailed, ProviderUnavailable
from remote_lab.netlab import allowlist, pod_site
from remote_lab.netlab.answers import plain
from remote_lab.netlab.boot import PHASES, Boot, Device, read_log_tail
from remote_lab.netlab.connector import Ending
from remote_lab.netlab.device_state import COLLECT_SECONDS, Collected, DeviceState, assemble, commands_of
from remote_lab.netlab.doctor import Doctor, Finding
from remote_lab.netlab.foreground import run_in_foreground
from remote_lab.netlab.host_site import HostSite, find_netlab
from remote_lab.netlab.image import Images
from remote_lab.netlab.limits import LabLimits, available_memory_mib, lab_limits
from remote_lab.netlab.management import IpFailed
from remote_lab.netlab.pod_site import PodSite
from remote_lab.netlab.site import LabPlace, NetlabRequest, Site, SiteFailed

__all__ = ["PHASES", "Device", "DeviceState", "Finding", "LabPlace", "Runner", "read_log_tail"]

logger = logging.getLogger(__name__)

_STATUS_SECONDS = 5.0
_ORPHAN_SECONDS = 5.0


class Runner:
    """Labs on this host.

    Args:
        provider: `auto`, or a netlab provider.
        netlab: executable for providers other than netns; None: found by itself.
        image: root file system for netns; None: the built one.
        image_dir: where built ones lie.
        image_mirror: where they are built from; None: the host's own Debian mirror.
        state_dir: of the server; marks what is ours on the host.
        management_pool: where netns labs get their management networks from.
        boot_seconds: deadline of a boot.
        teardown_seconds: deadline of a teardown.
        limits: of each lab in a sandbox; None: those of a server with one slot.
        stream_output: what netlab says goes line by line to the logger `remote_lab.netlab.output` as well.
    """

    def __init__(
        self,
        *,
        provider: str,
        netlab: str | None,
        image: str | None,
        image_dir: Path,
        image_mirror: str | None,
        state_dir: Path,
        management_pool: IPv4Network,
        boot_seconds: float,
        teardown_seconds: float,
        limits: LabLimits | None = None,
        stream_output: bool = False,
    ) -> None:
        self._boot_seconds = boot_seconds
        self._teardown_seconds = teardown_seconds
        images = Images(image_dir, mirror=image_mirror, chosen=image)
        self._doctor = Doctor(images=images, state_dir=state_dir, pool=management_pool, netlab=netlab)
        self._wanted, self._netlab = provider, netlab
        if provider == "auto":
            provider = _choose_provider(netlab) or pod_site.PROVIDER
        self._site: Site
        self._limits = (limits or lab_limits()) if provider == pod_site.PROVIDER else None
        if self._limits is not None:
            self._site = PodSite(
                images=images,
                state_dir=state_dir,
                pool=management_pool,
                limits=self._limits,
                stream_output=stream_output,
            )
        else:
            self._site = HostSite(provider=provider, netlab=netlab, stream_output=stream_output)

    @property
    def provider(self) -> str:
        """The netlab provider whose labs run here."""
        return self._site.provider

    def prepare(self) -> str:
        """Set up what all labs need; building the image can take a minute.

        Returns:
            the name of the provider.
        Raises:
            ProviderUnavailable: this host cannot run labs that way; the message says what is missing.
            ImageUnavailable: there is no root file system and none could be built.
        """
        if self._wanted == "auto" and _choose_provider(self._netlab) is None:
            raise ProviderUnavailable(
                f"No way to run labs was found. In sandboxes (provider 'netns'): "
                f"{'; '.join(pod_site.missing_requirements())}. "
                "With containers (provider 'clab'): netlab, containerlab and Docker are needed."
            )
        self._site.prepare()
        return self._site.provider

    def shutdown(self) -> None:
        """Undo `prepare`; labs go on."""
        self._site.shutdown()

    def has_memory(self) -> bool:
        """Whether the host has left what one more lab may take; where nothing limits labs, yes."""
        return self._limits is None or available_memory_mib() >= self._limits.memory_mib

    def keep_spare(self) -> None:
        """Prepare for the next boot from now on, where that makes it faster; returns at once.

        Only for the process that boots, and lives.
        """
        self._site.keep_spare()

    def has_spare(self) -> bool:
        """Return whether a boot that begins now finds what `keep_spare` prepares."""
        return self._site.has_spare()

    def drop_spare(self) -> None:
        """Undo `keep_spare`."""
        self._site.drop_spare()

    def boot(
        self,
        place: LabPlace,
        *,
        cancel: threading.Event,
        report_phase: Callable[[str], None],
        report_ready: Callable[[str], None] = lambda name: None,
    ) -> list[Device]:
        """Boot a lab and return its devices.

        Args:
            place: where; nothing of this lab may run yet.
            cancel: set by anyone to end the boot.
            report_phase: told each of `PHASES` as it begins.
            report_ready: told the name of each node once, when it is up, where the provider says that.
        Raises:
            LabBootFailed: it did not come up in time; nothing of it is left.
            LabBootCancelled: it was ended; nothing of it is left.
        """
        boot = Boot(self._site, place, time.monotonic() + self._boot_seconds, cancel, report_phase, report_ready)
        try:
            return boot.run()
        except BaseException:
            try:
                self.stop(place)
            except LabTeardownFailed:
                logger.exception("Lab %s failed to boot and left something behind", place.lab_id)
            raise

    @property
    def holds_labs(self) -> bool:
        """Whether a pod holds whatever labs do, so that any upload may run."""
        return isinstance(self._site, PodSite)

    def admit(self, directory: Path, topology: str) -> list[allowlist.Finding]:
        """Check an upload that is not trusted, where no pod holds it: what was checked is what lies there afterwards.

        Whoever reads or checks it meanwhile sees all of what was there or all of what is.

        Returns:
            what keeps it from running here; empty when nothing does.
        Args:
            directory: with the upload and nothing else; the one around it is written to.
            topology: its name there.
        Raises:
            OSError: it cannot be read or written.
        """
        if self.holds_labs:
            return []
        files = [path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir()]
        extra_names = sorted(name for name in files if name != topology)
        path = directory / topology
        content = path.read_bytes()
        findings = allowlist.check(topology, content, extra_names)
        if not findings and (plain := allowlist.in_plain_yaml(content)) != content:
            new = directory.with_name(str(uuid.uuid4()))
            try:
                new.write_bytes(plain)
                new.replace(path)
            finally:
                new.unlink(missing_ok=True)
        return findings

    def check(self, place: LabPlace) -> list[Device]:
        """Return the devices that a topology would have, without booting it; nothing runs after it.

        Args:
            place: of its own; nothing of it may run. What netlab creates stays in its directory.
        Raises:
            LabBootFailed: it would not boot; phase, reason and log as `boot` would have them.
        """
        never = threading.Event()
        check = Boot(self._site, place, time.monotonic() + self._boot_seconds, never, lambda phase: None)
        try:
            return check.run_without_nodes()
        finally:
            self._end_check(place)

    def _end_check(self, place: LabPlace) -> None:
        # A host provider has started nothing that `netlab down` could end.
        if isinstance(self._site, PodSite):
            self.stop(place)

    def netlab(self, place: LabPlace, arguments: Sequence[str]) -> int:
        """Run an operator's netlab command for a running lab with this process's own input and output.

        Args:
            place: of the lab.
            arguments: of netlab, such as `("validate",)`.
        Returns:
            netlab's exit status; 128 and the number of a signal that ended it.
        Raises:
            LabNotRunning: nothing of it runs.
        """
        try:
            return run_in_foreground(self._site.foreground_call(place, arguments))
        except (SiteFailed, OSError) as error:
            raise LabNotRunning(place.lab_id, str(error)) from error

    def doctor(self) -> list[Finding]:
        """Return what this host can and cannot run, with the remedies; never raises."""
        return self._doctor.examine()

    def stop(self, place: LabPlace) -> None:
        """End a lab in whatever state it is; does nothing when nothing of it is left.

        Raises:
            LabTeardownFailed: something is still there after every escalation.
        """
        began = time.monotonic()
        left = self._site.close(place, deadline=began + self._teardown_seconds)
        if left:
            raise LabTeardownFailed(f"Lab {place.lab_id} could not be ended: {left}.")
        logger.debug("Lab %s stopped in %.2f s", place.lab_id, time.monotonic() - began)

    def probe(self, place: LabPlace) -> str | None:
        """Return None when the lab really runs, otherwise the reason why not."""
        return self._site.probe(place)

    def vanished(self, place: LabPlace) -> str | None:
        """Return the reason why a lab that was running is dead, as far as can be seen without starting netlab.

        A host that has no process or file left to look with says nothing about the lab.
        """
        try:
            return self._site.vanished(place)
        except (OSError, SubprocessError, IpFailed) as error:
            logger.warning("Whether lab %s runs cannot be seen now: %s", place.lab_id, error)
            return None

    def dead_devices(self, place: LabPlace, names: Collection[str]) -> list[str]:
        """Return which of these devices of a running lab are gone for good, as far as that costs milliseconds."""
        try:
            return self._site.dead_nodes(place, names)
        except (OSError, SubprocessError, IpFailed) as error:
            logger.warning("Which devices of lab %s run cannot be seen now: %s", place.lab_id, error)
            return []

    def status(self, place: LabPlace) -> str:
        """Return what `netlab status` prints for the lab, or a sentence why it prints nothing."""
        request = NetlabRequest(("status",), seconds=_STATUS_SECONDS, capture=True, quiet=True)
        try:
            result = self._site.netlab(place, request)
        except (SiteFailed, OSError) as error:
            return f"The lab does not run: {error}."
        if result.ending is not Ending.EXITED:
            return f"netlab status gave no answer within {_STATUS_SECONDS:.0f} seconds."
        return plain(result.output).strip() or f"netlab status ended with status {result.exit_status}."

    def login_key(self, place: LabPlace) -> str | None:
        """Return the private key that logs in to the devices of a running lab; None when it has none of its own."""
        return self._site.login_key(place)

    def collect(self, place: LabPlace, devices: Sequence[Device]) -> list[DeviceState]:
        """Return what the devices of a running lab say of themselves, within limits of time and size; never raises.

        A device that cannot be asked has outputs that say why.
        """
        wanted = {device.name: commands_of(device.raw) for device in devices}
        collected: Collected = {}
        why = "the device was not reached"
        try:
            collected = self._site.collect(place, wanted, seconds=COLLECT_SECONDS)
        except (SiteFailed, OSError) as error:
            logger.warning("The state of lab %s cannot be collected: %s", place.lab_id, error)
            why = str(error)
        return assemble([(device.name, device.raw) for device in devices], wanted, collected, why)

    def orphans(self, known_lab_ids: Collection[str]) -> list[str]:
        """Return ids of labs of this server that run though nobody knows them, found by what they are."""
        return self._site.orphans(known_lab_ids)

    def end_orphan(self, lab_id: str) -> None:
        """End one of them, or try to for a few seconds: who asks has other things to do and comes again.

        Raises:
            LabTeardownFailed: something is still there.
        """
        left = self._site.end_orphan(lab_id, deadline=time.monotonic() + min(self._teardown_seconds, _ORPHAN_SECONDS))
        if left:
            raise LabTeardownFailed(f"Lab {lab_id} could not be ended: {left}.")


def _choose_provider(netlab: str | None) -> str | None:
    if not pod_site.missing_requirements():
        return pod_site.PROVIDER
    if find_netlab(netlab) and shutil.which("docker") and shutil.which("containerlab"):
        return "clab"
    return None
