"""What must hold: after every step (`ALWAYS`), and once no fault has happened for a while (`IN_PEACE`).

Each is one function with a sentence. One of `ALWAYS` gets the one that has just taken a step, looks at what that step
may have changed, and raises `Fault`; one of `IN_PEACE` returns what is not well yet. That a connection is served by one
worker at most is held by `World.own`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rpccluster.ipc.scoreboard import Cell, CommonCell
from rpccluster.master.children import policy

from .client import Controller
from .master import Master
from .world import Fault, World

if TYPE_CHECKING:
    from .afternoon import Afternoon

__all__ = ["ALWAYS", "IN_PEACE"]


def bounded_processes(world: World, actor: object) -> None:
    """A slot has one process that fills it, and at most one more that is to replace it."""
    if isinstance(actor, Master) and world.births:
        held = [child.slot for child in actor.parts.workers.children if child.is_holding]
        for slot in set(held):
            allowed = 3 if slot == 0 else 2  # the first worker of a reload stands beside that of slot 0
            if held.count(slot) > allowed:
                raise Fault(f"{actor.name} has {held.count(slot)} workers for slot {slot}")


def deadlines_wake(world: World, actor: object) -> None:
    """A master that sleeps has nothing to do that no event asks for, until the time for which it has set its alarm."""
    if not isinstance(actor, Master) or actor.wake_at <= world.now or world.now < actor.looks_at or actor.parts is None:
        return
    actor.looks_at = world.now + 1.0  # now and then: it costs as much as a turn
    until, group = actor.wake_at, actor.parts.workers
    moment = min(until, world.now + 60.0) - 0.001
    if moment > world.now and not any(child.row[CommonCell.HEARTBEAT] == 0 for child in group.children):
        actions = policy.decide(group, moment).actions
        if actions:
            raise Fault(f"{actor.name} sleeps until {until:.3f}, though at {moment:.3f} it has {actions[0]}")


def restarts_pause(world: World, actor: object) -> None:
    """Workers of a slot that never get ready are started again ever more slowly, up to the longest pause."""
    for worker in world.births:
        master = worker.parent
        group = master.parts.workers
        options = group.options
        failed = [death for death in group.deaths.get(worker.slot, ()) if death.at > group.forgiven_at]
        in_a_row = 0
        for death in reversed(failed):
            if death.ready_at is not None or death.was_asked:
                break
            in_a_row += 1
        others = [child for child in group.children if child.slot == worker.slot and child.pid != worker.pid]
        is_candidate = group.section.staged is not None
        if in_a_row > 2 and not others and not is_candidate:
            due = min(options.restart_delay_max, options.restart_delay * 2 ** (in_a_row - 3))
            if world.now < failed[-1].at + due - 0.001:
                raise Fault(f"{worker.name} is started {world.now - failed[-1].at:.1f} s after {in_a_row} failed boots")
    world.births.clear()


def one_generation_at_a_time(world: World, actor: object) -> None:
    """A reload is all or nothing: a worker has a generation that was committed, or proves the next one."""
    if isinstance(actor, Master) and actor.parts is not None:
        cluster, group = actor.parts.cluster, actor.parts.workers
        newest = cluster.generation + (cluster.staged is not None)
        for child in group.children:
            if child.generation > newest and not child.is_killed:
                raise Fault(f"worker {child.pid} is of generation {child.generation}, the cluster of {newest}")


ALWAYS = [bounded_processes, deadlines_wake, restarts_pause, one_generation_at_a_time]


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


def pidfile_names_it(afternoon: Afternoon) -> str:
    """The pidfile has the pid of the master that is left."""
    try:
        with open(afternoon.paths["pid"]) as file:
            found = file.read().strip()
    except OSError:
        found = "nothing"
    pid = afternoon.masters()[0].pid
    return "" if found == str(pid) else f"the pidfile names {found}, and the master is {pid}"


def answered(afternoon: Afternoon) -> str:
    """Whoever has asked at the control socket has an answer."""
    waiting = [each for each in afternoon.world.clients.values() if isinstance(each, Controller)]
    return f"{waiting[0].name} waits for an answer to {waiting[0].method}" if waiting else ""


IN_PEACE = [answered, one_master, pidfile_names_it, as_many_as_wanted, nothing_under_way, served]
