"""What must hold of pools after every step, and in peace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rpccluster.master.kinds.tasks.process import TaskProcess

from ..children.pools import Dispatcher, TaskChild
from ..masters.master import Master
from ..world.process import Fault
from ..world.world import World
from .plugins import is_out_of_sight

if TYPE_CHECKING:
    from ..afternoon import Afternoon

__all__ = ["OF_POOLS", "dispatcher_knows"]


def one_dispatcher(world: World, actor: object) -> None:
    """Two dispatchers never live at once, over an upgrade either: both would give tasks to the same processes."""
    for born in world.births:
        for other in world.of_noun[Dispatcher.noun].values() if isinstance(born, Dispatcher) else ():
            if other is not born and not is_out_of_sight(other, born):
                raise Fault(f"{born.name} is born, and {other.name} still lives")


def bounded_pools(world: World, actor: object) -> None:
    """A pool has no more processes than it wants with its spares, and one that is to replace another."""
    if isinstance(actor, Master) and world.births:
        for group in actor.parts.groups.all:
            held = sum(child.is_holding for child in group.children if isinstance(child, TaskProcess))
            if held > group.places + 1:
                raise Fault(f"{actor.name} has {held} processes of {group.name}, which wants {group.places}")


def no_task_dies_for_another(world: World, actor: object) -> None:
    """A process is not killed for a task that it has ended, once it has begun another one."""
    for killer, pid in world.kills:
        target = world.processes.get(pid)
        if not isinstance(target, TaskChild):
            continue
        children = (child for group in killer.parts.groups.all for child in group.children)
        child = next((each for each in children if isinstance(each, TaskProcess) and each.pid == pid), None)
        if child is not None and child.condemned and target.number not in (0, child.condemned):
            raise Fault(f"{killer.name} kills {target.name} for task {child.condemned}, and it runs {target.number}")


OF_POOLS = [one_dispatcher, bounded_pools, no_task_dies_for_another]


def dispatcher_knows(afternoon: Afternoon) -> str:
    """The dispatcher knows the processes that it may use, as many as are wanted, and no others."""
    groups = [group for group in afternoon.masters()[-1].parts.groups.all if group.kind.name == "task"]
    dispatchers = list(afternoon.world.of_noun[Dispatcher.noun].values())
    if not groups:
        return ""
    if len(dispatchers) != 1:
        return f"there are {len(dispatchers)} dispatchers"
    given = {child.serial for group in groups for child in group.children if child.is_given and child.is_ready}
    known = set(dispatchers[0].known)
    if known != given:
        return f"{dispatchers[0].name} knows {len(known)} processes, and there are {len(given)}"
    wanted = sum(group.wanted for group in groups)
    return "" if len(known) == wanted else f"{wanted} processes of pools are wanted, and there are {len(known)}"
