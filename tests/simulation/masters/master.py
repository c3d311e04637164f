"""A made-up process that runs the real master: a real `Supervisor` of real `Parts`, one turn a step."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from rpccluster.config.configuration import Sources
from rpccluster.errors import StartError
from rpccluster.log import set_up_logging
from rpccluster.master.supervisor import Supervisor
from rpccluster.master.upgrade.inherited import Inheritance, Thing
from rpccluster.master.upgrade.new_master import Stage

from ..children.leading import Coordinator
from ..children.pages import Page
from ..children.plugin import Plugin
from ..children.pools import Dispatcher, TaskChild
from ..children.queues import Keeper
from ..children.serving.worker import Worker
from ..children.wire import client_of_copy
from ..plans.plan import OLDER
from ..world.process import NEVER, Fault, Process
from ..world.world import World
from .closing import close_all_of
from .relay import Relay
from .selector import Inbox
from .starting import assemble
from .system import Logs, MadeUpSystem

__all__ = ["Master"]

LINE = logging.Formatter("%(message)s")  # the story has its own time


class Master(Process):
    """A master, from its start to its end; its program is loaded ``boots_in`` seconds after the fork."""

    noun = "master"
    is_checked = True  # whatever a rule is about, a master does it

    def __init__(self, world: World, pid: int, parent: Process | None, sources: Sources) -> None:
        super().__init__(world, pid, parent)
        self.sources = sources
        self.system = MadeUpSystem(world, self)
        self.inbox = Inbox()
        self.logs = Logs(world, self.name)
        self.supervisor: Supervisor | None = None
        self.parts: Any = None
        self.inherited: list[Thing] | None = None
        self.inheritance: Inheritance | None = None
        self._boots_at = world.now
        self._wake_at = NEVER
        self.seconds_late = 0.0  # that its last turn came too late
        self.looks_at = 0.0  # when an invariant looks at it again
        self.turns_alone = 0  # since it is the only master
        self.sleepless_turns = 0  # since it has last planned to sleep
        self.has_just_left = self.has_just_begun = self.has_just_stopped = False  # in its last turn
        self.passed_on: set[int] = set()  # connections that a new master was given, and has not adopted
        self.awaited_at = 0.0  # when connections could still come to its retiring workers
        self.was_awaited = False
        self.number_upgrades = 0  # that have begun
        self.begun: set[str] = set()  # groups of plugins
        self.ended: dict[tuple[str, int], Any] = {}  # by plugin and slot: the last process that has ended by itself
        self.committing_since = 0.0
        self.commands_at_go = -1  # how many there were in this world
        self.aim = self.aim_before_upgrade = 0  # number of workers that it wants
        self.bequest: Any = None  # what the old master was told

    # -- its start

    def boot_in(self, seconds: float, inherited: Sequence[Thing] | None = None) -> None:
        """Begin in ``seconds``; ``inherited`` are the parent's things, of which this process gets copies."""
        if inherited is not None:
            self.inherited = [
                replace(thing, descriptor=None if thing.descriptor is None else os.dup(thing.descriptor))
                for thing in inherited
            ]
        self._boots_at = self.world.now + seconds

    @property
    def wake_at(self) -> float:
        return self._boots_at if self.supervisor is None else self._wake_at

    def _boot(self) -> None:
        logger_goes_to(self)
        try:
            assemble(self)
            self._wake_at = self.world.now
        except StartError as error:
            if self.parent is None:
                raise Fault(f"the cluster cannot start: {error}") from error
            self.world.tell(self.name, f"cannot start: {error}")
            self.end(code=1)

    # -- its children

    def bear(self, assignment: Any) -> None:
        child = _SCRIPTS[assignment.kind](self.world, self.system.newborn, self, assignment)
        self.world.add(child)
        self.world.births.append(child)

    def begin_new_master(self, inherited: Sequence[Thing]) -> None:
        self.number_upgrades += 1
        new = Master(self.world, self.system.newborn, self, self.sources)
        relay = None
        if self.world.plan.version:
            relay = Relay(self.world, self.world.plan.version, _channel_of(inherited))
            inherited = relay.give_to(inherited)
        plan = self.world.plan
        new.boot_in(plan.boot_seconds(plan.chance(new.name), 0.1, 3.0), inherited)
        if relay is not None:
            relay.theirs.close()
        self.world.add(new)
        self.world.tell(self.name, f"forks master {new.pid}{_version(self.world)}")

    # -- its life

    def take_signal(self, signum: int) -> None:
        if self.is_alive:
            self.inbox.note(signum)

    def step(self) -> None:
        if self.supervisor is None:
            self._boot()
            return
        logger_goes_to(self)
        for child in self.children.values():
            child.beat()
        stage, phase, number = self.parts.new_master.stage, self.phase, self.number_upgrades
        self.seconds_late = max(0.0, self.world.now - self._wake_at)
        if self.world.now < self.world.scarcity.table_is_full_until:
            for client in sorted(self.world.on_their_way):
                self.world.excuse(client, f"{self.name} may have had no descriptor for it", is_torn=True)
        if self.world.scarcity.is_over(self.world.now):
            self.supervisor.turn()
        else:
            with self.world.scarcity.imposed(self.world.now):
                self.supervisor.turn()
            self._note_uncovered()
        if self.world.births:
            self._watch_children()
        self.has_just_begun = self.number_upgrades != number
        self.has_just_left = phase != "leaving" == self.phase
        self.has_just_stopped = phase != self.phase
        if self.parts.new_master.stage is not stage:
            self._note_stage(stage)
        if not self.parts.cluster.phase.allows.connections_move and self.phase != "drained":
            self._excuse_callers()
        if self.has_just_left and not any(each.has_listeners for each in self.world.of_noun[self.noun].values()):
            self._excuse_waiting()
        if self.supervisor.exit_code is not None:
            self.end(code=self.supervisor.close(self.supervisor.exit_code))
            return
        waits = self.supervisor.waits
        self._wake_at = NEVER if waits is None else self.world.now + waits
        self.sleepless_turns = self.sleepless_turns + 1 if waits == 0.0 else 0

    def _watch_children(self) -> None:
        """Count the rows of the table of children that are met, from their births on."""
        for child in self.parts.roster._children:
            if "step" not in vars(child):
                child.step = partial(_step_of, self.world, child, child.step)

    def _note_uncovered(self) -> None:
        """Note of which connections it may have lost a copy, for lack of descriptors."""
        copies = {number for held in self.parts.broker._copies._copies.values() for number in held}
        for child in self.children.values():
            for connection in child.connections.by_client.values() if isinstance(child, Worker) else ():
                connection.is_kept = connection.is_kept and connection.number in copies

    def _note_stage(self, before: Stage) -> None:
        present = self.parts.new_master.stage
        self.world.count("stage", f"{before.value}, {present.value}")
        if present is Stage.COMMITTING:
            self.committing_since = self.world.now
            self.commands_at_go = -1 if self.inbox.has_any else self.world.commands

    @property
    def phase(self) -> str:
        """The name of its phase; empty before it has one."""
        return self.parts.cluster.phase._value_ if self.parts is not None else ""

    @property
    def is_committing(self) -> bool:
        """Whether it has told a new master to take over, and has no answer yet."""
        return self.parts is not None and self.parts.new_master.is_committing

    @property
    def has_listeners(self) -> bool:
        """Whether callers that wait in the backlog have somebody to wait for."""
        return self.inherited is not None or (self.parts is not None and bool(self.parts.cluster.listeners))

    def lose_parent(self) -> None:
        """Nothing ends a new master with the old one."""

    # -- its end

    def end(self, *, code: int | None = None, signum: int | None = None) -> None:
        if self.is_alive:
            self.world.master_ends += 1
            self._excuse_callers(is_torn=True)
        super().end(code=code, signum=signum)

    def _excuse_callers(self, *, is_torn: bool = False) -> None:
        """This master stops, or is gone: connections end with it, but for those that another master has."""
        processes = self.world.processes.values()
        but: set[int] = set()
        for worker in processes:
            if isinstance(worker, Worker) and worker.parent is not self:
                but |= set(worker.connections)
        for other in self.world.of_noun[self.noun].values():
            if other is not self:
                but |= other.in_transit
        if any(isinstance(each, Master) and each is not self and each.has_listeners for each in processes):
            but |= {number for number, client in self.world.clients.items() if not client.is_accepted}
        if self.world.plan.version == OLDER and self.parent is not None:
            but.clear()  # an old master of protocol 1 has left before it could know
        self.world.excuse_all(f"{self.name} ends", but, is_torn=is_torn)

    def _excuse_waiting(self) -> None:
        """This master has left, and the new one has stopped meanwhile: nobody accepts those who wait."""
        for number, client in list(self.world.clients.items()):
            if not client.is_accepted:
                self.world.excuse(number, f"{self.name} has left to a master that has stopped")

    @property
    def in_transit(self) -> set[int]:
        """The clients whose connections this master holds, and has passed to nobody."""
        transits = self.parts.broker._transits.values() if self.parts is not None else ()
        return {client_of_copy(each.descriptors[0]) for each in transits if not each.is_with_new_master}

    def release(self) -> None:
        """Close all that a master has open, as the kernel does."""
        close_all_of(self)


_SCRIPTS: dict[str, Any] = {
    "rpc": Worker,
    "plugin": Plugin,
    "coordinator": Coordinator,
    "dispatcher": Dispatcher,
    "keeper": Keeper,
    "task": TaskChild,
    "web": Page,
}


def _step_of(world: World, child: Any, step: Any, event: Any) -> None:
    before = child.state
    step(event)
    world.count("child", f"{before.value}, {event.value}")


def _channel_of(inherited: Sequence[Thing]) -> int:
    return next(each.descriptor for each in inherited if each.name == "channel" and each.descriptor is not None)


def _version(world: World) -> str:
    return f"; {world.plan.version}" if world.plan.version else ""


def logger_goes_to(master: Master) -> None:
    """From now on it is this master that logs."""
    if master.world.logs_of is not master:
        master.world.logs_of = master
        set_up_logging(master.logs, "info", LINE)
