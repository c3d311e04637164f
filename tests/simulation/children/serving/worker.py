"""A made-up worker: a small script that does to its master what the real one does, by the real messages.

It boots slowly, or never; it accepts, gives and adopts connections, answers calls at once or later, beats or hangs,
obeys or not. It may end before any message and after any. Its states are the real worker's table.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Callable

from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import (
    Accept,
    BootFailed,
    Findings,
    Inquire,
    Listen,
    Message,
    Propose,
    Ready,
    Release,
    ReopenLogs,
    Retire,
    Switch,
    Switched,
    Vote,
    WantsToRetire,
)
from rpccluster.ipc.scoreboard import Cell, CommonCell, RowState
from rpccluster.system import TELL_SIGNAL
from rpccluster.worker.lifecycle import Event, State, next_state

from ...plans.plan import BAD
from ...world.process import NEVER, Died, Process
from ...world.world import World
from ..wire import copy_of, socket_of
from .calls import Calls
from .connections import Connections
from .keeping import Keeping
from .moves import Moves
from .retiring import Retiring

if TYPE_CHECKING:
    from ...masters.master import Master

__all__ = ["Worker"]

BEAT_SECONDS = 0.5


class Worker(Process):
    """One worker. ``fuse`` is the number of acts until it dies; None: it does not."""

    noun = "worker"
    group_name = "workers"

    def __init__(self, world: World, pid: int, master: Master, assignment: Any) -> None:
        super().__init__(world, pid, master)
        self.slot, self.serial, self.row = assignment.slot, assignment.serial, assignment.row
        self.generation = assignment.generation
        self.is_bad = assignment.options.proc_name == BAD
        self.channel = copy_of(assignment.channel)
        self.connections, self.calls = Connections(self), Calls(self)
        self.moves = Moves(self, copy_of(assignment.part.connections))
        self.listeners = [socket_of(os.dup(each.fileno())) for each in assignment.part.listeners]
        for channel in (self.channel, self.moves.channel):
            world.watch(channel.fileno(), self)
        self.row[Cell.CONNECTION_LIMIT] = assignment.options.worker_connections
        self.state = State.BOOTING
        self.retiring = Retiring(self)
        self.asks_at = NEVER  # to be replaced
        self.reason = ""
        self.hangs_until = 0.0
        self.fuse: int | None = None
        self.is_deaf = False  # to an order to retire
        world.number_births += 1
        self.random = world.plan.chance(f"worker {world.number_births}")
        self.keeping = Keeping(self, assignment.part) if assignment.part.ledger >= 0 else None
        self.has_crashed = False
        self.boots_at = world.now + world.plan.boot_seconds(self.random, 0.01, 2.0)
        if world.number_births not in world.plan.spared and not world.is_calm:
            self._draw_fate(world.plan.chance(f"fate {world.number_births}"))
        world.tell(self.name, f"is born for slot {self.slot}, generation {self.generation}")

    def _draw_fate(self, chance: Random) -> None:
        if chance.random() < 0.15:
            self.fuse = chance.randrange(1, 30)
        if chance.random() < 0.04:
            self.boots_at = self.world.now + 5.0 + 55.0 * chance.random()
        self.is_deaf = chance.random() < 0.03
        if self.keeping is not None and chance.random() < 0.4:
            self.keeping.fuse = chance.randrange(1, 60)

    # -- time

    @property
    def is_hanging(self) -> bool:
        return self.world.now < self.hangs_until

    @property
    def wake_at(self) -> float:
        if self.state is State.BOOTING:
            return self.boots_at
        if self.state is State.GONE:
            return self.retiring.ends_at
        first = self.asks_at
        if self.state is State.RETIRING:
            first = min(first, self.retiring.wake_at)
        if self.calls.forwards:
            first = min(first, *self.calls.forwards.values())
        if self.keeping is not None:
            first = min(first, self.keeping.asks_at)
        for connection in self.connections.by_client.values():
            first = min(first, connection.due_at(self.world.now))
        return first

    def hang(self, seconds: float) -> None:
        """Do nothing for so long; a beat is missed, too."""
        self.beat()
        self.hangs_until = self.resumes_at = self.world.now + seconds
        self.world.tell(self.name, f"hangs for {seconds:.1f} seconds")

    def beat(self) -> None:
        """Write the heartbeat that it would have written by now: nobody looks at it in between."""
        if self.state is not State.BOOTING and not self.is_hanging:
            now = self.world.now
            self.row[CommonCell.HEARTBEAT] = int((now - now % BEAT_SECONDS) * 1e9)

    # -- one step

    def step(self) -> None:
        try:
            if self.state is State.BOOTING:
                if self.channel.fileno() in self.world.come:
                    self._read_orders()
                if self.world.now >= self.boots_at:
                    self._boot()
                return
            if self.state is State.GONE:
                self._run_last_hook()
                return
            acts = self._due()
            self.random.shuffle(acts)
            for act in acts[: self.random.randrange(1, len(acts) + 1)]:
                act()
            if self.state is State.RETIRING:
                self.retiring.look()
        except Died:
            self.world.count("fault", "died in the middle")
            self.end(signum=signal.SIGSEGV)
        except SystemExit as error:
            self.end(code=error.code)  # type: ignore[arg-type]

    def _due(self) -> list[Callable[[], None]]:
        """Return what there is to do; some of it is done now, in any order."""
        come = self.world.come
        acts = [self._look_after_calls]
        if self.channel.fileno() in come or self.channel.has_unsent:
            acts.append(self._read_orders)
        if self.moves.is_due:
            acts.append(self.moves.read)
        if any(listener.fileno() in come for listener in self.listeners):
            acts.append(self._accept)
        if any(each.socket.fileno() in come for each in self.connections.by_client.values()):
            acts.append(self.calls.read)
        return acts

    def act(self) -> None:
        """Something is about to be done; it may be the last thing, or the one that is not done."""
        if self.fuse is not None and not self.world.is_calm:
            self.fuse -= 1
            if self.fuse < 0:
                raise Died

    def _boot(self) -> None:
        self.act()
        if self.is_bad:
            self.say(self.channel, BootFailed("service", "the service is at fault"))
            raise SystemExit(3)
        self.step_to(Event.BOOTED)
        self.say(self.channel, Ready(["work"]))
        self.beat()

    def step_to(self, event: Event) -> None:
        before, self.state = self.state, next_state(self.state, event)
        self.world.count("worker", f"{before.value}, {event.value}")
        serves = self.state is State.SERVING
        self.row[CommonCell.STATE] = RowState.ACCEPTING if serves else RowState.NOT_ACCEPTING
        for listener in self.listeners:
            self.world.unwatch(listener.fileno())
            if serves:
                self.world.watch(listener.fileno(), self)

    def say(self, channel: Channel, message: Message, descriptors: Sequence[int] = ()) -> None:
        self.act()
        self.world.count("message", type(message).__name__)
        channel.send(message, descriptors)

    # -- what the master says

    def _read_orders(self) -> None:
        self.each(self.channel, self._act_on)
        if self.channel.is_closed:
            raise SystemExit(1)
        self.channel.flush()

    def each(self, channel: Channel, heed: Callable[[Message, list[int]], object]) -> None:
        """Heed each message that has come; what was read and not heeded dies with the process."""
        found = deque(channel.receive())
        try:
            while found:
                message, descriptors = found.popleft()
                self.world.count("message", type(message).__name__)
                heed(message, descriptors)
        finally:
            for _, descriptors in found:
                for descriptor in descriptors:
                    os.close(descriptor)

    def _act_on(self, message: Message, descriptors: list[int]) -> None:
        if isinstance(message, Listen):
            self.listeners += [socket_of(descriptor) for descriptor in descriptors]
            if self.state is State.SERVING:
                for listener in self.listeners[-len(descriptors) :]:
                    self.world.watch(listener.fileno(), self)
        elif isinstance(message, ReopenLogs):
            for descriptor in descriptors:
                os.close(descriptor)
        self.act()
        if isinstance(message, Accept):
            self.step_to(Event.MAY_ACCEPT)
        elif isinstance(message, Retire) and not self.is_deaf:
            self.retiring.obey(message)
        elif isinstance(message, Release):
            self.moves.release(message)
        elif isinstance(message, Propose) and self.random.random() < 0.95:
            self.say(self.channel, Vote(message.attempt, "" if self.random.random() < 0.9 else "it does not suit"))
        elif isinstance(message, Inquire) and self.noun == "worker" and self.random.random() < 0.9:
            self.say(self.channel, Findings(message.number, {"what": message.what}))
        elif isinstance(message, Switch) and self.state is not State.BOOTING:
            self.say(self.channel, Switched(message.version))

    def take_signal(self, signum: int) -> None:
        if signum == signal.SIGTERM and self.state is not State.RETIRING:
            self.ask_to_retire("SIGTERM", 0.1)
        elif signum == TELL_SIGNAL and self.random.random() < 0.5:
            self.row[CommonCell.HUNG_IN] = 1

    def ask_to_retire(self, reason: str, seconds: float = 0.0) -> None:
        """Ask the master for a successor, in a moment."""
        self.reason, self.asks_at = reason, self.world.now + seconds

    # -- connections and calls

    def _accept(self) -> None:
        for listener in self.listeners if self.state is State.SERVING else []:
            self.connections.accept(listener)

    def _look_after_calls(self) -> None:
        self.calls.look_after()
        if self.keeping is not None:
            self.keeping.look()
        if self.world.now >= self.asks_at:
            self.asks_at = NEVER
            if self.state is not State.RETIRING:
                self.say(self.channel, WantsToRetire(self.reason))

    # -- its end

    @property
    def has_work(self) -> bool:
        """Whether it has connections, or answers of calls whose connections have moved."""
        return bool(self.connections or self.calls.forwards or self.moves.has_work)

    def _run_last_hook(self) -> None:
        for act in self._due():
            act()
        if self.world.now >= self.retiring.ends_at:
            raise SystemExit(0)

    def end(self, *, code: int | None = None, signum: int | None = None) -> None:
        self.has_crashed = signum == signal.SIGSEGV
        super().end(code=code, signum=signum)

    def release(self) -> None:
        self.connections.release()
        self.moves.release_unannounced()
        if self.keeping is not None:
            self.keeping.release()
        for channel in (self.channel, self.moves.channel):
            self.world.unwatch(channel.fileno())
            channel.close()
        for listener in self.listeners:
            self.world.unwatch(listener.fileno())
            listener.close()
