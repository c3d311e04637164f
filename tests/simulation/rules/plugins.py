"""What must hold of plugins after every step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rpccluster.master.children.order import is_after

from ..children.plugin import Plugin
from ..masters.master import Master
from ..world.process import Fault, Process
from ..world.world import World

__all__ = ["OF_PLUGINS", "group_of", "is_out_of_sight"]

LINGER_SECONDS = 1.0  # in which what a plugin has left is killed, once its master has noticed its end
ESSENTIAL_EXIT = 5


def group_of(child: Any) -> Any:
    """Return the group to which a made-up child belongs in its master."""
    name = f"plugin:{child.plugin}" if isinstance(child, Plugin) else child.group_name
    return child.parent.parts.groups.named(name)


def _born(world: World) -> Iterator[Plugin]:
    return (child for child in world.births if isinstance(child, Plugin))


def they_do_not_overlap(world: World, actor: object) -> None:
    """Two processes of a slot never live at once, nor does what an earlier one has left, unless ``overlap`` says so.

    A master cannot know of the last but one's after the one between them was killed.
    """
    for born in _born(world):
        if born.options.overlap != "none":
            continue
        for other in world.of_noun[Plugin.noun].values():
            is_same = (other.plugin, other.slot) == (born.plugin, born.slot)
            if is_same and other is not born and not is_out_of_sight(other, born):
                raise Fault(f"{born.name} is born as {born.plugin} {born.slot}, and {other.name} still lives")
        for left in world.of_noun["descendant"].values():
            from_it = left.plugin
            is_same = (from_it.plugin, from_it.slot) == (born.plugin, born.slot)
            if is_same and not left.is_doomed and from_it is not born and not is_out_of_sight(from_it, born):
                raise Fault(f"{born.name} is born as {born.plugin} {born.slot}, and {left.name} of the last one lives")


def is_out_of_sight(earlier: Process, born: Process) -> bool:
    """Return whether the master of ``earlier`` lives, and the one between it and that of ``born`` does not."""
    between = born.parent.parent if born.parent is not None else None
    while between is not None and between.is_alive:
        between = between.parent
    while between is not None and between is not earlier.parent:
        between = between.parent
    return between is not None and between.is_alive


def they_start_in_order(world: World, actor: object) -> None:
    """A plugin's first process starts when those of the groups in ``after`` are ready, or have failed once."""
    for born in _born(world):
        master, name = born.parent, f"plugin:{born.plugin}"
        if not isinstance(master, Master) or name in master.begun:
            continue
        master.begun.add(name)
        if group_of(born).spawn_at:  # its turn came before, when no process could be forked
            continue
        for earlier in group_of(born).after:
            group = master.parts.groups.named(earlier)
            if group is None or group.deaths or group.failure or not group.wants_children:
                continue
            wanted = min(group.wanted, born.wanted.get(earlier, 0))  # a reload in the same turn may want more
            if sum(child.ready_at is not None for child in group.children) < wanted:
                raise Fault(f"{born.name} of {name} is born, and {earlier}, after which it comes, is not ready")


def they_stop_in_order(world: World, actor: object) -> None:
    """While the cluster stops, a process is told to end when all groups that come after its own have ended."""
    stops, world.stops = world.stops, []
    for master, pid in stops:
        told = world.processes.get(pid)
        if master.phase != "stopping" or not isinstance(told, Plugin):
            continue
        groups = master.parts.groups.all
        group = group_of(told)
        child = next((each for each in group.children if each.pid == pid), None)
        if child is None or child.retire_reason != master.phase or world.now >= group.stop_by:
            continue
        for later in groups:
            if later is not group and later.children and is_after(later, group, groups):
                raise Fault(f"{told.name} of {group.name} is told to stop, and {later.name}, which comes after, lives")


def they_rest_when_finished(world: World, actor: object) -> None:
    """A slot is not filled again if ``restart`` wants no more, unless a user has asked for that."""
    for born in _born(world):
        master = born.parent
        if not isinstance(master, Master):
            continue
        last = master.ended.pop((born.plugin, born.slot), None)
        if last is not None and last.commands == world.commands and _wants_no_more(born.options.restart, last):
            raise Fault(f"{born.name} is born as {born.plugin} {born.slot}, whose last process had finished")


def _wants_no_more(restart: str, last: Plugin) -> bool:
    return restart == "never" or (restart == "on-failure" and last.code == 0)


def they_stay_stopped(world: World, actor: object) -> None:
    """A plugin that was stopped by hand starts nothing until somebody has it started."""
    for born in _born(world):
        if born.stopped:
            raise Fault(f"{born.name} is born as {born.plugin} {born.slot}, which was stopped {born.stopped}")


def nothing_is_left(world: World, actor: object) -> None:
    """What a plugin has forked does not outlive it, once its master has taken a step, but for a moment."""
    if isinstance(actor, Master):
        for left in world.of_noun["descendant"].values():
            plugin = left.plugin
            if plugin.parent is actor and not plugin.is_alive and not left.is_doomed and not actor.zombies:
                since = plugin.ended_at
                if world.now > since + LINGER_SECONDS:
                    raise Fault(f"{left.name} lives {world.now - since:.1f} seconds after its plugin")


OF_PLUGINS = [
    they_do_not_overlap,
    they_start_in_order,
    they_stop_in_order,
    they_rest_when_finished,
    they_stay_stopped,
    nothing_is_left,
]
