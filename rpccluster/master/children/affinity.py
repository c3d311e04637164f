"""Which CPU each worker slot is pinned to. Decides only: the pinning is done where a worker is spawned.

Pure but for `read_topology`, which reads /sys. The master.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from rpccluster.config.cpulist import CPU_AUTO, CPU_NONE, CPUChoice

__all__ = ["Core", "cpu_order", "cpus_for_slot", "read_topology"]


@dataclass(frozen=True, order=True)
class Core:
    """A physical core: its package (the chip in its socket), and its number there."""

    package: int
    number: int


def cpu_order(choice: CPUChoice, allowed: Collection[int], topology: Mapping[int, Core]) -> list[int] | None:
    """The CPUs to hand out to slots 0, 1, 2 …, cycling; None where workers are not pinned.

    A list is taken as written; that its CPUs are allowed was checked at the start. ``auto`` orders ``allowed``.
    """
    if choice == CPU_NONE:
        return None
    return _spread(allowed, topology) if choice == CPU_AUTO else list(choice.cpus)


def cpus_for_slot(order: list[int] | None, slot: int) -> list[int] | None:
    """The CPUs to pin the worker of ``slot`` to, None for no pinning."""
    return [order[slot % len(order)]] if order else None


def _spread(allowed: Collection[int], topology: Mapping[int, Core]) -> list[int]:
    """Every core once, packages taking turns; then the cores' second threads likewise, and so on.

    A CPU that ``topology`` does not know counts as a core of its own.
    """
    threads: dict[Core, list[int]] = {}
    for cpu in sorted(allowed):
        threads.setdefault(topology.get(cpu, Core(-1, cpu)), []).append(cpu)
    turns: list[tuple[int, int, int, int]] = []
    cores_seen: dict[int, int] = {}
    for core in sorted(threads):
        turn = cores_seen[core.package] = cores_seen.get(core.package, -1) + 1
        turns += [(thread, turn, core.package, cpu) for thread, cpu in enumerate(threads[core])]
    return [cpu for *_, cpu in sorted(turns)]


def read_topology(cpus: Collection[int], folder: str = "/sys/devices/system/cpu") -> dict[int, Core]:
    """The core of each of ``cpus``, as far as the kernel tells: Documentation/ABI/stable/sysfs-devices-system-cpu."""
    topology = {}
    for cpu in cpus:
        about = Path(folder, f"cpu{cpu}", "topology")
        try:
            package, number = ((about / name).read_text() for name in ("physical_package_id", "core_id"))
            topology[cpu] = Core(int(package), int(number))
        except (OSError, ValueError):  # a virtual machine may not say
            continue
    return topology
