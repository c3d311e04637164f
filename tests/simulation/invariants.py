"""What must hold: after every step (`ALWAYS`), and once no fault has happened for a while (`IN_PEACE`).

Each is one function with a sentence. One of `ALWAYS` raises `Fault`; one of `IN_PEACE` returns what is not well yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rpccluster.ipc.scoreboard import Cell

from .master import Master
from .worker import Worker
from .world import Fault, World

if TYPE_CHECKING:
    from .afternoon import Afternoon

__all__ = ["ALWAYS", "IN_PEACE"]


def one_owner(world: World) -> None:
    """A connection is served by one worker at most."""
    owners: dict[int, str] = {}
    for worker in world.processes.values():
        if isinstance(worker, Worker):
            for client in worker.connections:
                if client in owners:
                    raise Fault(f"the connection of client {client} has two owners: {owners[client]}, {worker.name}")
                owners[client] = worker.name


def bounded_processes(world: World) -> None:
    """A slot has one process that fills it, and at most one more that is to replace it."""
    for master in _running(world):
        held = [child.slot for child in master.parts.workers.children if child.is_holding]
        for slot in set(held):
            allowed = 3 if slot == 0 else 2  # the first worker of a reload stands beside that of slot 0
            if held.count(slot) > allowed:
                raise Fault(f"{master.name} has {held.count(slot)} workers for slot {slot}")


ALWAYS = [one_owner, bounded_processes]


def _running(world: World) -> list[Master]:
    return [each for each in world.processes.values() if isinstance(each, Master) and each.parts is not None]


# -- in peace


def one_master(afternoon: Afternoon) -> str:
    """One master is left, and it runs, unless it is drained or ends."""
    masters = afternoon.masters()
    if len(masters) != 1:
        return f"there are {len(masters)} masters"
    phase = masters[0].phase
    return "" if phase in ("running", "drained") else f"the master is {phase}"


def as_many_as_wanted(afternoon: Afternoon) -> str:
    """Each wanted slot has a ready worker, and no other process is left."""
    master = afternoon.masters()[0]
    workers = master.parts.workers
    if not workers.phase.allows.wants_children:
        return "workers are left in a drained cluster" if workers.children else ""
    if not workers.is_settled():
        found = ", ".join(f"{child.slot}: {child.state.value}" for child in workers.children)
        return f"{workers.wanted} workers are wanted, and there are {found or 'none'}"
    return "" if len(afternoon.workers()) == workers.wanted else "there are workers that the master does not know"


def nothing_under_way(afternoon: Afternoon) -> str:
    """No reload, no upgrade, no connection is under way."""
    parts = afternoon.masters()[0].parts
    if parts.reloading.is_under_way:
        return "a reload is still under way"
    if parts.new_master.is_under_way:
        return "an upgrade is still under way"
    return f"{parts.broker.in_transit} connections are in transit" if parts.broker.in_transit else ""


def served(afternoon: Afternoon) -> str:
    """Each connection that may not end is served by a worker, and its calls are answered."""
    if not afternoon.masters()[0].parts.workers.ready():
        return ""
    limits = sum(worker.row[Cell.CONNECTION_LIMIT] for worker in afternoon.workers())
    owned = {client for worker in afternoon.workers() for client in worker.connections}
    for client in afternoon.world.clients.values():
        if client.excuse:
            continue
        if client.number not in owned and len(owned) < limits:
            return f"the connection of {client.name} is served by nobody"
        if client.number in owned and client.open_calls:
            return f"calls of {client.name} are not answered"
    return ""


IN_PEACE = [one_master, as_many_as_wanted, nothing_under_way, served]
