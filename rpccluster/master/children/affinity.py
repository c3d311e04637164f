"""Decides which CPU each slot is pinned to. Pure; runs in the master.

The child pins itself, in `rpccluster.child.prepare`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from rpccluster.config.cpus import CPU_AUTO, CPU_NONE, CPUChoice
from rpccluster.system.cpus import Core

__all__ = ["cpu_order", "cpus_for_slot"]


def cpu_order(choice: CPUChoice, allowed: Collection[int], topology: Mapping[int, Core]) -> list[int] | None:
    """Return the CPUs for the slots 0, 1, 2 …, cycling; None if nothing is pinned.

    A list stays as written; the start has checked that its CPUs are allowed. ``auto`` orders ``allowed``.
    """
    if choice == CPU_NONE:
        return None
    return _spread(allowed, topology) if choice == CPU_AUTO else list(choice.cpus)


def cpus_for_slot(order: list[int] | None, slot: int) -> list[int] | None:
    """Return the CPUs for ``slot``; None if nothing is pinned."""
    return [order[slot % len(order)]] if order else None


def _spread(allowed: Collection[int], topology: Mapping[int, Core]) -> list[int]:
    """List every core once, the packages in turns, then the cores' second threads in the same order, and so on.

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
