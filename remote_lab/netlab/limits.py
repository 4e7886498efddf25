"""How much of the host one lab may take, and the sentences that name a limit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_MEMORY_INFO = Path("/proc/meminfo")
_SHARE_OF_ALL_LABS = 0.75
_SMALLEST_DEFAULT_MIB = 512
_DEFAULT_PROCESSES = 4096
_DEFAULT_DISK_MIB = 1024
_MEBIBYTE = 2**20


@dataclass(frozen=True)
class LabLimits:
    """What one lab may take; the settings `REMOTE_LAB_LAB_*`."""

    memory_mib: int
    """Processes, what they wrote, and what the kernel keeps for them."""
    processes: int
    """And threads."""
    disk_mib: int
    """What is written below / and /lab; it lies in memory and counts there as well."""

    @property
    def memory_bytes(self) -> int:
        return self.memory_mib * _MEBIBYTE

    @property
    def memory_sentence(self) -> str:
        return f"it used more memory than REMOTE_LAB_LAB_MEMORY_MIB={self.memory_mib} allows"

    @property
    def processes_sentence(self) -> str:
        return f"it started more processes than REMOTE_LAB_LAB_PROCESSES={self.processes} allows"

    @property
    def disk_sentence(self) -> str:
        return f"it wrote more than REMOTE_LAB_LAB_DISK_MIB={self.disk_mib} allows"


def lab_limits(
    *, slots: int = 1, memory_mib: int | None = None, processes: int | None = None, disk_mib: int | None = None
) -> LabLimits:
    """Return the limits of each lab; what is not said is chosen so that all labs together leave the host its share.

    Args:
        slots: how many labs run at the same time.
        memory_mib: None: three quarters of the host's memory, shared by the slots.
        processes: None: enough for a hundred FRR routers.
        disk_mib: None: 1 GiB.
    """
    share = max(int(_host_memory_mib() * _SHARE_OF_ALL_LABS) // slots, _SMALLEST_DEFAULT_MIB)
    return LabLimits(memory_mib or share, processes or _DEFAULT_PROCESSES, disk_mib or _DEFAULT_DISK_MIB)


def available_memory_mib() -> int:
    """Return what the host has left without swapping, by its own estimate (proc_meminfo(5), MemAvailable)."""
    return _memory_mib("MemAvailable")


def _host_memory_mib() -> int:
    return _memory_mib("MemTotal")


def _memory_mib(field: str) -> int:
    fields = dict(line.split(":", 1) for line in _MEMORY_INFO.read_text().splitlines())
    return int(fields[field].split()[0]) // 1024
