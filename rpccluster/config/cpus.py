"""How many CPUs this process may use: its affinity, and the quota of its cgroup. Any process.

Reads /proc and /sys, changes nothing: pinning workers is the master's.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from rpccluster.config.cpulist import CPUChoice

__all__ = ["MOST_WORKERS", "allowed_cpus", "default_workers", "quota_cpus"]

MOST_WORKERS = 512

_CGROUP = re.compile(r"^[0-9]+:([^:\n]*):(.*)$", re.MULTILINE)
_ALLOWED = re.compile(r"^Cpus_allowed_list:\s*([0-9,-]+)$", re.MULTILINE)


def default_workers() -> int:
    """The default of ``number_workers``: the CPUs this process may run on, at most its cgroup's quota."""
    return workers_for(len(allowed_cpus()), quota_cpus())


def workers_for(cpus: int, quota: float) -> int:
    """``cpus`` bounded by ``quota``, rounded down, at least one."""
    return max(1, min(cpus, MOST_WORKERS, math.floor(min(quota, MOST_WORKERS))))


def allowed_cpus() -> frozenset[int]:
    """The CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return cpus_of_status(_text(Path("/proc/self/status")))  # PyPy 3.9


def cpus_of_status(text: str) -> frozenset[int]:
    """The CPUs that a ``/proc/PID/status`` allows its process: proc(5)."""
    allowed = _ALLOWED.search(text)
    return frozenset(CPUChoice.parse(allowed[1]).cpus) if allowed else frozenset(range(os.cpu_count() or 1))


def quota_cpus(root: str = "/") -> float:
    """The CPUs' worth of time that this process's cgroups grant, infinity where they set no bound.

    A cgroup is bounded by those above it too: cgroups(7), "cpu.max" of the kernel's cgroup-v2 document,
    ``cpu.cfs_quota_us`` of version 1. Below ``root`` are the files to read; tests hand in a tree of their own.
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
    """The folders from a cgroup up to the mount's root, which inside a container may be all there is."""
    inner = PurePosixPath(path.lstrip("/"))
    return [str(folder) for folder in (inner, *inner.parents) if ".." not in folder.parts]


def _quota(text: str) -> float:
    """CPUs of ``QUOTA PERIOD`` in microseconds; "max" and -1 stand for no bound."""
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
