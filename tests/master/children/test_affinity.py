"""Which CPU each worker slot gets, on made-up machines."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpccluster.config import CPU_AUTO, CPU_NONE, CPUChoice
from rpccluster.master.children.affinity import cpu_order, cpus_for_slot
from rpccluster.system.cpus import Core, allowed_cpus, read_topology


def machine(cpus: int, core_of: Callable[[int], tuple[int, int]]) -> dict[int, Core]:
    return {cpu: Core(*core_of(cpu)) for cpu in range(cpus)}


FLAT = machine(4, lambda cpu: (0, cpu))
SIBLINGS_APART = machine(8, lambda cpu: (0, cpu % 4))
SIBLINGS_ADJACENT = machine(8, lambda cpu: (0, cpu // 2))
TWO_PACKAGES = machine(8, lambda cpu: (cpu // 2 % 2, cpu % 2))


@pytest.mark.parametrize(
    ("topology", "allowed", "order"),
    [
        (FLAT, range(4), [0, 1, 2, 3]),
        (FLAT, {3, 1}, [1, 3]),
        (SIBLINGS_APART, range(8), [0, 1, 2, 3, 4, 5, 6, 7]),
        (SIBLINGS_ADJACENT, range(8), [0, 2, 4, 6, 1, 3, 5, 7]),
        (SIBLINGS_ADJACENT, {1, 2, 3, 5}, [1, 2, 5, 3]),
        (TWO_PACKAGES, range(8), [0, 2, 1, 3, 4, 6, 5, 7]),
        ({}, {0, 1, 2}, [0, 1, 2]),
        ({0: Core(0, 0), 1: Core(0, 0)}, {0, 1, 2}, [2, 0, 1]),
    ],
)
def test_auto_takes_distinct_cores_first(topology: dict[int, Core], allowed: set[int], order: list[int]) -> None:
    """Packages take turns, then cores, and second threads come last; only allowed CPUs are used."""
    assert cpu_order(CPU_AUTO, allowed, topology) == order


@given(
    st.sets(st.integers(0, 63), min_size=1),
    st.dictionaries(st.integers(0, 63), st.builds(Core, st.integers(0, 3), st.integers(0, 15))),
)
def test_auto_uses_each_allowed_cpu_once_and_no_core_twice_before_all(
    allowed: set[int], topology: dict[int, Core]
) -> None:
    """Whatever the machine: with no more workers than cores, no two share a core."""
    order = cpu_order(CPU_AUTO, allowed, topology)
    assert order is not None
    assert sorted(order) == sorted(allowed)
    cores = [topology.get(cpu, Core(-1, cpu)) for cpu in order]
    assert len(set(cores[: len(set(cores))])) == len(set(cores))


def test_none_pins_nothing() -> None:
    """The default leaves workers to the kernel."""
    order = cpu_order(CPU_NONE, {0, 1}, FLAT)
    assert order is None
    assert cpus_for_slot(order, 3) is None


def test_a_list_is_taken_as_written_and_cycles() -> None:
    """Worker slot k gets the k-th, cycling."""
    order = cpu_order(CPUChoice.parse("3,0-1,0"), {0, 1, 2, 3}, FLAT)
    assert [cpus_for_slot(order, slot) for slot in range(6)] == [[3], [0], [1], [0], [3], [0]]


def test_this_machine_can_be_ordered() -> None:
    """The real files, where there are any, give an order of the real CPUs."""
    allowed = allowed_cpus()
    order = cpu_order(CPU_AUTO, allowed, read_topology(allowed))
    assert order is not None
    assert set(order) == allowed
