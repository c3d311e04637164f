"""The CPUs of this machine: which ones this process may use, how much of their time, which core each belongs to.

Also pins a process. Reads /proc and /sys, and decides nothing.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

__all__ = ["Core", "allowed_cpus", "displace_nobody", "pin", "quota_cpus", "read_topology"]

_CGROUP = re.compile(r"^[0-9]+:([^:\n]*):(.*)$", re.MULTILINE)
_ALLOWED = re.compile(r"^Cpus_allowed_list:\s*([0-9,-]+)$", re.MULTILINE)


def allowed_cpus() -> frozenset[int]:
    """Return the CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return cpus_of_status(_text(Path("/proc/self/status")))  # PyPy 3.9


def cpus_of_status(text: str) -> frozenset[int]:
    """Read the allowed CPUs from the text of a ``/proc/PID/status``: proc(5)."""
    allowed = _ALLOWED.search(text)
    if allowed is None:
        return frozenset(range(os.cpu_count() or 1))
    spans = [span.partition("-") for span in allowed[1].split(",")]
    return frozenset(cpu for first, _, last in spans for cpu in range(int(first), int(last or first) + 1))


def pin(cpus: list[int], pid: int = 0) -> None:
    """Let this process, or the process ``pid``, run on ``cpus`` alone. Raises OSError if the kernel refuses."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(pid, cpus)
    else:
        import psutil

        psutil.Process(pid or None).cpu_affinity(cpus)


def displace_nobody() -> None:
    """Let the calling thread, when it wakes, take the CPU from no thread that runs: SCHED_BATCH, sched(7).

    Its share of the CPU stays the same. Does nothing where the kernel, or Python, does not know this.
    """
    with contextlib.suppress(AttributeError, OSError):
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


@dataclass(frozen=True, order=True)
class Core:
    """A physical core: its package (the chip in its socket), and its number there."""

    package: int
    number: int


def read_topology(cpus: Collection[int], folder: str = "/sys/devices/system/cpu") -> dict[int, Core]:
    """Map ``cpus`` to their cores, as far as the kernel tells: Documentation/ABI/stable/sysfs-devices-system-cpu."""
    topology = {}
    for cpu in cpus:
        about = Path(folder, f"cpu{cpu}", "topology")
        try:
            package, number = ((about / name).read_text() for name in ("physical_package_id", "core_id"))
            topology[cpu] = Core(int(package), int(number))
        except (OSError, ValueError):  # a virtual machine may lack it
            continue
    return topology


def quota_cpus(root: str = "/") -> float:
    """Return how many CPUs' time this process's cgroups grant; infinity without a limit.

    The cgroups above limit a cgroup, too: cgroups(7), "cpu.max" of the kernel's cgroup-v2 document,
    ``cpu.cfs_quota_us`` of version 1. The files are below ``root``; tests pass a tree of their own.
    """
    return min(_quotas(Path(root)), default=math.inf)


def _quotas(root: Path) -> Iterator[float]:
    mounts = root / "sys/fs/cgroup"
    for controllers, path in _CGROUP.findall(_text(root / "proc/self/cgroup")):
        for folder in _upwards(path):
            if not controllers:
                yield _quota(_text(mounts / folder / "cpu.max"))
            elif "cpu" in controllers.split(","):
                group = mounts / controllers / folder
                yield _quota(f"{_text(group / 'cpu.cfs_quota_us')} {_text(group / 'cpu.cfs_period_us')}")


def _upwards(path: str) -> list[str]:
    """List the folders from a cgroup up to the mount's root, the only one that a container may have."""
    inner = PurePosixPath(path.lstrip("/"))
    return [str(folder) for folder in (inner, *inner.parents) if ".." not in folder.parts]


def _quota(text: str) -> float:
    """Convert ``QUOTA PERIOD`` in microseconds to CPUs; "max" and -1 mean no limit."""
    numbers = text.split()
    try:
        quota, period = int(numbers[0]), int(numbers[1])
    except (IndexError, ValueError):
        return math.inf
    return quota / period if quota > 0 and period > 0 else math.inf


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="surrogateescape")
    except OSError:
        return ""
