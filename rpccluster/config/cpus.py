"""The value of ``cpu_affinity``, and the default of ``number_workers``. Any process.

`rpccluster.master.children.affinity` decides which CPUs ``auto`` means; `rpccluster.config.checks` whether they exist.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from rpccluster.system.cpus import allowed_cpus, quota_cpus

__all__ = ["CPU_AUTO", "CPU_INHERITED", "CPU_NONE", "MOST_WORKERS", "CPUChoice", "default_workers"]

MOST_WORKERS = 512  # a typo must not fork until the machine is full

_RANGE = re.compile(r"([0-9]{1,4})(?:\s*-\s*([0-9]{1,4}))?")
_MOST_CPUS = 8192  # NR_CPUS of the largest Linux builds; a list may name one CPU several times


@dataclass(frozen=True)
class CPUChoice:
    """A choice of CPUs. ``mode`` is "none", "auto", "list", or "" for that of ``[cluster]``; ``cpus`` are a list's."""

    mode: str
    cpus: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> CPUChoice:
        """Parse ``none``, ``auto`` or a list such as ``0-3,8``. Raises `ValueError`."""
        if text.lower() in ("none", "auto"):
            return cls(text.lower())
        cpus: list[int] = []
        for item in text.split(","):
            cpus += _read_range(item.strip())
            if len(cpus) > _MOST_CPUS:
                raise ValueError(text)
        return cls("list", tuple(cpus))

    def __str__(self) -> str:
        return ",".join(_write_ranges(self.cpus)) if self.mode == "list" else self.mode


CPU_NONE = CPUChoice("none")
CPU_AUTO = CPUChoice("auto")
CPU_INHERITED = CPUChoice("")


def _read_range(text: str) -> range:
    match = _RANGE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    first = int(match[1])
    last = int(match[2] or first)
    if last < first or last >= _MOST_CPUS:
        raise ValueError(text)
    return range(first, last + 1)


def _write_ranges(cpus: tuple[int, ...]) -> Iterator[str]:
    start = 0
    for end in range(1, len(cpus) + 1):
        if end == len(cpus) or cpus[end] != cpus[end - 1] + 1:
            yield str(cpus[start]) if end - start == 1 else f"{cpus[start]}-{cpus[end - 1]}"
            start = end


def default_workers() -> int:
    """Return the default of ``number_workers``: the CPUs this process may run on, at most its cgroup's quota."""
    return workers_for(len(allowed_cpus()), quota_cpus())


def workers_for(cpus: int, quota: float) -> int:
    """Return ``cpus``, at most ``quota`` rounded down, and at least one."""
    return max(1, min(cpus, MOST_WORKERS, math.floor(min(quota, MOST_WORKERS))))
