"""What must hold of two masters of one cluster after every step."""

from __future__ import annotations

import os
from dataclasses import dataclass

from rpccluster.address import UnixAddress
from rpccluster.master.upgrade.new_master import Stage

from ..masters.master import Master
from ..plans.plan import OLDER
from ..users.client import Controller
from ..world.process import NEVER, Fault
from ..world.world import World

__all__ = [
    "connections_go_to_the_living",
    "one_owner",
    "orders_are_passed_on",
    "paths_stay",
    "pidfile_is_signed",
    "stopping_lets_nobody_take_over",
]

SHARED_SECONDS = 5.0


def stopping_lets_nobody_take_over(world: World, actor: object) -> None:
    """In a master that stops, no upgrade is under way."""
    if isinstance(actor, Master) and actor.phase in ("stopping", "quitting") and actor.parts.new_master.is_under_way:
        raise Fault(f"{actor.name} is {actor.phase}, and its upgrade goes on")


def one_owner(world: World, actor: object) -> None:
    """Two masters do not own the cluster for longer than `SHARED_SECONDS`, unless one of them stands still."""
    masters = world.of_noun[Master.noun].values()
    if len(masters) < 2 or world.plan.version == OLDER:  # one of protocol 1 cannot know
        world.shared_since = NEVER
        return
    owners = [each for each in masters if each.phase in ("running", "drained") and not each.is_committing]
    if len(owners) < 2 or any(each.resumes_at > world.now + 0.5 for each in owners):
        world.shared_since = NEVER
        return
    world.shared_since = min(world.shared_since, world.now)
    if world.now > world.shared_since + SHARED_SECONDS:
        raise Fault(f"{owners[0].name} and {owners[1].name} both own the cluster")


def pidfile_is_signed(world: World, actor: object) -> None:
    """As soon as a master is alone, the pidfile has its pid."""
    if not isinstance(actor, Master) or actor.phase not in ("running", "drained"):
        return
    if len(world.of_noun[Master.noun]) > 1 or actor.parts.new_master.is_under_way:  # it may hear of the end late
        actor.turns_alone = 0
        return
    actor.turns_alone += 1
    pidfile = actor.parts.ownership.pidfile
    has_room = world.now > world.scarcity.disk_is_full_until + 15.0
    if actor.turns_alone == 2 and has_room and not pidfile.names(actor.pid):
        raise Fault(f"{actor.name} is the only master, and its pidfile does not name it")


def connections_go_to_the_living(world: World, actor: object) -> None:
    """A master whose new master has ended gives that one no further connection."""
    if not isinstance(actor, Master) or actor.parts is None or actor.parts.new_master.stage is not Stage.DONE:
        return
    passed_on = {cid for cid, each in actor.parts.broker._transits.items() if each.is_with_new_master}
    lives = actor.phase == "leaving" or actor.parts.new_master.pid in world.processes  # while this one quits, too
    if not lives and not actor.has_just_stopped and passed_on - actor.passed_on:
        raise Fault(f"{actor.name} gives a connection to a new master that has ended")
    actor.passed_on = passed_on


def paths_stay(world: World, actor: object) -> None:
    """A master that leaves unlinks nothing."""
    if isinstance(actor, Master) and actor.has_just_left:
        new = world.processes.get(actor.parts.new_master.pid)
        held = new.parts.cluster.listeners if isinstance(new, Master) and new.parts is not None else []
        for listener in held:
            path = listener.wanted.path if isinstance(listener.wanted, UnixAddress) else ""
            if path and path not in world.removed and not os.path.exists(path):
                raise Fault(f"{actor.name} has left, and the path of {os.path.basename(path)} is gone")


@dataclass
class Bequest:
    """What a master was told during an upgrade, and a new one must know: how many workers are wanted."""

    number: int
    generation: int
    commands: int  # how many there were in this world
    turns: int = 0  # of the new master, since the old one has ended


def orders_are_passed_on(world: World, actor: object) -> None:
    """A new master wants as many workers as the old one was told to want since the upgrade began."""
    if not isinstance(actor, Master) or actor.parts is None:
        return
    if actor.has_just_left:
        _note_bequest(world, actor)
    elif actor.phase != "leaving":
        actor.aim = _aim(actor)
        if actor.parts.new_master.stage is Stage.NONE or actor.has_just_begun:
            actor.aim_before_upgrade = actor.aim
    left = actor.bequest
    if left is not None and not actor.parent.is_alive:
        left.turns += 1
        is_other = actor.parts.cluster.generation != left.generation or actor.phase not in ("running", "drained")
        if is_other or world.commands != left.commands or world.is_calm:
            actor.bequest = None
        elif left.turns > 3 and not actor.parts.reloading.is_under_way:
            actor.bequest = None
            if _aim(actor) != left.number:
                raise Fault(
                    f"{left.number} workers were asked for in the upgrade, and {actor.name} wants {_aim(actor)}"
                )


def _note_bequest(world: World, old: Master) -> None:
    new = world.processes.get(old.parts.new_master.pid)
    is_asked = any(isinstance(each, Controller) for each in world.clients.values())
    if (
        isinstance(new, Master)
        and new.parts is not None
        and old.aim != old.aim_before_upgrade
        and not (is_asked or world.plan.version)
    ):
        new.bequest = Bequest(old.aim, new.parts.cluster.generation, old.commands_at_go)


def _aim(master: Master) -> int:
    phase = master.parts.cluster.phase
    return master.parts.workers.wanted if phase.allows.wants_children else 0
