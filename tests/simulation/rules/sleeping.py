"""What must hold of a master's sleep after every step: every deadline wakes it, and nothing keeps it awake."""

from __future__ import annotations

from rpccluster.ipc.scoreboard import CommonCell
from rpccluster.master.children import policy

from ..masters.master import Master
from ..world.process import Fault
from ..world.world import World

__all__ = ["deadlines_wake", "nobody_spins"]

MOST_SLEEPLESS_TURNS = 50  # ten times as many as any afternoon needs


def deadlines_wake(world: World, actor: object) -> None:
    """A master that sleeps has nothing to do that no event asks for, until the time for which it has set its alarm."""
    if not isinstance(actor, Master) or actor.parts is None or not actor.is_alive:
        return
    if actor.wake_at <= world.now or world.now < actor.looks_at:
        return
    actor.looks_at = world.now + 1.0  # now and then: it costs as much as a turn
    until = actor.wake_at
    moment = min(until, world.now + 60.0) - 0.001
    for group in actor.parts.groups.all if moment > world.now else ():
        is_watched = group.options.timeout and any(child.row[CommonCell.HEARTBEAT] == 0 for child in group.children)
        actions = [] if is_watched else policy.decide(group, moment).actions
        if actions:
            raise Fault(f"{actor.name} sleeps until {until:.3f}, though at {moment:.3f} it has {_told(actions[0])}")


def _told(action: policy.Action) -> str:
    """Tell an action without the address of an object, which no other run has."""
    if isinstance(action, policy.Spawn):
        return f"to start a process in slot {action.slot}"
    return f"to {type(action).__name__.lower()} process {action.child.pid}"


def nobody_spins(world: World, actor: object) -> None:
    """A master has soon done what is due, and sleeps: one whose alarm is always past would take a whole CPU."""
    if isinstance(actor, Master) and actor.sleepless_turns > MOST_SLEEPLESS_TURNS:
        raise Fault(f"{actor.name} spins: {actor.sleepless_turns} turns without any sleep")
