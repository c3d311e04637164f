"""The made-up world: a clock that jumps, processes that take steps in an order that the seed chooses, and the story.

Nothing here runs by itself. A process is asked for one step when something has come for it or is due; when no process
can go on, the clock jumps to the next moment at which one can. Sockets are real, so that order within a channel, ends
of files and counts of descriptors are the kernel's; everything happens in this one process and thread.
"""

from __future__ import annotations

import heapq
import itertools
import random
import select
import signal
from collections import Counter, defaultdict
from collections.abc import Container
from typing import Any, Callable

from ..plans.plan import Plan
from .process import NEVER, Actor, Fault, Process
from .scarcity import Scarcity

__all__ = ["World"]

MOST_STEPS_AT_ONCE = 3_000  # without the clock moving: somebody spins

_READ = select.POLLIN | select.POLLHUP | select.POLLERR


class World:
    """One made-up world. ``counts`` adds up what was met: (kind, what) → how often."""

    def __init__(self, plan: Plan, folder: str, counts: Counter[tuple[str, str]] | None = None) -> None:
        self.plan = plan
        self.folder = folder
        self.random = random.Random(plan.order)
        self.now = 1000.0
        self.story: list[str] = []
        self.counts: Counter[tuple[str, str]] = Counter() if counts is None else counts
        self.processes: dict[int, Process] = {}
        self.of_noun: defaultdict[str, dict[int, Any]] = defaultdict(dict)  # the same ones, by noun
        self.owners: dict[int, Process] = {}  # by number of the client: the worker that serves its connection
        self.clients: dict[int, Any] = {}  # by number
        self.client_numbers = itertools.count(1)
        self.tasks: dict[int, Any] = {}  # task processes by serial
        self.task_numbers = itertools.count(1)
        self._msgids = itertools.count(1)
        self.runners: dict[int, Process] = {}  # by msgid: the worker that has begun with a call
        self.checks: list[Callable[[World, Any], None]] = []  # each gets the one that has just taken a step
        self.is_calm = False  # no fault happens any more
        self.forks_fail_until = 0.0
        self.scarcity = Scarcity()
        self.is_scarce = any(step.what == "fill the table of descriptors" for step in plan.steps)
        self.on_their_way: set[int] = set()  # clients whose connections were given, and not adopted yet
        self.orphans: set[int] = set()  # calls by msgid that awaited a reply in a connection whose owner has ended
        self.replied: set[int] = set()  # calls whose replies stand in the ledger of a worker that has ended
        self.crashed_while_reading: set[tuple[int, int]] = set()  # client and message, at which a worker has crashed
        self.relays: list[Any] = []  # between two masters of two versions
        self.store: Any = None  # in which clusters agree on who leads
        self.births: list[Any] = []  # workers, since the last look at them
        self.kills: list[tuple[Any, int]] = []  # master and pid, since the last look at them
        self.stops: list[tuple[Any, int]] = []  # master and pid, likewise: told by a signal to end
        self.removed: set[str] = set()  # paths that somebody has removed
        self.commands = 0  # number of all that users have sent and asked for
        self.crashed_at = 0.0  # when a process has ended that nobody had asked to
        self.master_ends = 0  # how many have ended
        self.shared_since = NEVER  # since when two masters own everything
        self.must_end = False  # a master that owned everything was told to stop
        self.masters_were_killed = False
        self.watches: list[Any] = []  # of files
        self.number_births = 0  # of workers
        self.on_event: Callable[[str, str], None] = lambda kind, what: None
        self.is_orderly = plan.is_orderly
        self.logs_of: Process | None = None  # whose log the logger writes
        self.errors: list[str] = []  # tracebacks in a log: a fault of rpccluster that a guard has caught
        self.steps = 0
        self._events: list[tuple[float, int, Callable[..., object], tuple[Any, ...], dict[str, Any]]] = []
        self._numbers = itertools.count()
        self._pids = itertools.count(100)
        self._poll = select.poll()
        self._watched: dict[int, tuple[int, Any]] = {}
        self.come: dict[int, int] = {}  # the descriptors for which something has come, as poll(2) tells it
        self._steps_at_once = 0
        self._ready: dict[Any, None] | None = None  # for whom something had come; None: it may have changed

    # -- what is told

    @property
    def has_open_commands(self) -> bool:
        """Whether somebody at a control socket has no answer yet."""
        return any(number < 0 for number in self.clients)

    def tell(self, who: str, what: str) -> None:
        """Add a line to the story."""
        self.story.append(f"{self.now - 1000:9.3f}  {who:<12} {what}")

    def count(self, kind: str, what: str) -> None:
        """Count that ``what`` was met."""
        self.counts[kind, what] += 1
        self.on_event(kind, what)

    # -- chance

    def may(self, chance: float) -> bool:
        """Whether something with this chance happens now."""
        return self.random.random() < chance

    def between(self, least: float, most: float) -> float:
        """Some number of seconds between the two."""
        return least + (most - least) * self.random.random()

    def delay(self) -> float:
        """Some time that passes until a process is scheduled, or a signal arrives."""
        kind = self.random.random()
        if kind < 0.6 or self.is_orderly:
            return 0.0
        return self.between(0.0, 0.003 if kind < 0.95 else 0.3)

    # -- processes

    def new_pid(self) -> int:
        return next(self._pids)

    def add(self, process: Process) -> None:
        self.processes[process.pid] = self.of_noun[process.noun][process.pid] = process
        if process.parent is not None:
            process.parent.children[process.pid] = process

    def remove(self, process: Process) -> None:
        del self.processes[process.pid], self.of_noun[process.noun][process.pid]
        if process.parent is not None:
            del process.parent.children[process.pid]

    def signal(self, pid: int, signum: int) -> None:
        """Deliver a signal, a moment later. A process that is killed takes no step any more."""
        process = self.processes.get(pid)
        if signum == signal.SIGKILL and process is not None:
            process.resumes_at = NEVER
        self.after(self.delay(), self._deliver, pid, signum)

    def _deliver(self, pid: int, signum: int) -> None:
        process = self.processes.get(pid)
        if process is None:
            return
        if signum == signal.SIGKILL:
            process.end(signum=signum)
        else:
            process.take_signal(signum)

    # -- connections and calls

    def new_msgid(self) -> int:
        return next(self._msgids)

    def begin_call(self, msgid: int, worker: Process) -> None:
        """Note that ``worker`` begins with a call. Nobody else may have begun with it."""
        if msgid in self.runners:
            raise Fault(f"{worker.name} begins with call {msgid}, with which {self.runners[msgid].name} has begun")
        self.runners[msgid] = worker

    def own(self, client: int, worker: Process) -> None:
        """Note that ``worker`` serves the connection of ``client``. It is the only one."""
        if client in self.owners:
            other = self.owners[client].name
            raise Fault(f"the connection of client {client} has two owners: {other}, {worker.name}")
        self.owners[client] = worker

    def excuse(self, client: int, why: str, *, is_torn: bool = False) -> None:
        """The connection of ``client`` may end from now on; if it ``is_torn``, no answer comes any more."""
        found = self.clients.get(client)
        if found is not None and is_torn:
            found.is_torn = True
        if found is not None and not found.excuse:
            found.excuse = why
            self.tell(found.name, f"may lose its connection: {why}")

    def excuse_all(self, why: str, but: Container[int] = (), *, is_torn: bool = False) -> None:
        """Any connection may end from now on, except those of the clients ``but``."""
        for number in list(self.clients):
            if number not in but:
                self.excuse(number, why, is_torn=is_torn)

    # -- descriptors that wake somebody

    def watch(self, descriptor: int, actor: Actor, events: int = _READ) -> None:
        """Let ``actor`` take a step whenever ``descriptor`` is ready."""
        self._poll.register(descriptor, events)
        self._watched[descriptor] = (next(self._numbers), actor)

    def unwatch(self, descriptor: int) -> None:
        if self._watched.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def ready(self) -> dict[Any, None]:
        """Return everybody for whom something has come, in the order in which it was first watched for."""
        self.come = dict(self._poll.poll(0))
        found = [self._watched[number] for number in self.come]
        if len(found) > 1:
            found.sort(key=_first)
        return dict.fromkeys([actor for _, actor in found])

    # -- time

    def at(self, time: float, do: Callable[..., object], *arguments: Any, **named: Any) -> None:
        """Call ``do`` at ``time``."""
        heapq.heappush(self._events, (max(time, self.now), next(self._numbers), do, arguments, named))

    def after(self, seconds: float, do: Callable[..., object], *arguments: Any, **named: Any) -> None:
        """Call ``do`` in ``seconds``."""
        self.at(self.now + seconds, do, *arguments, **named)

    def run(self, until: float, is_done: Callable[[], bool] = lambda: False) -> bool:
        """Let the world go on until it is done, or until a time. Returns whether it is done."""
        self._ready = None
        while not is_done():
            if not self._go_on(until):
                return is_done()
        return True

    def _go_on(self, until: float) -> bool:
        """Let one step, or the next events, happen. Returns False if that would be after ``until``."""
        if self._events and self._events[0][0] <= self.now:
            self._ready = None
            _, _, do, arguments, named = heapq.heappop(self._events)
            do(*arguments, **named)
            return True
        able, later = self._who_is_able()
        if not able:
            moment = min([each[0] for each in later], default=NEVER)
            is_event_first = bool(self._events) and self._events[0][0] <= moment
            moment = self._events[0][0] if is_event_first else moment
            if moment > until:
                self.now = max(self.now, until)
                return False
            self.now, self._steps_at_once = moment, 0
            if is_event_first:
                return True
            able = [each for at, each in later if at <= moment]
        self._step(able[0] if len(able) == 1 else self.random.choice(able))
        return True

    def _who_is_able(self) -> tuple[list[Any], list[tuple[float, Any]]]:
        """Return those who can take a step now, and of the others when each can."""
        if self._ready is None:
            self._ready = self.ready()
        ready, now = self._ready, self.now
        able: list[Any] = []
        later: list[tuple[float, Any]] = []
        for process in self.processes.values():
            moment = process.resumes_at
            if moment < NEVER and process not in ready:
                wake_at = process.wake_at
                moment = wake_at if wake_at > moment else moment
            if moment <= now:
                able.append(process)
            elif moment < NEVER:
                later.append((moment, process))
        for actor in ready:
            if not isinstance(actor, Process):  # a client does nothing unless something comes for it
                if actor.resumes_at <= now:
                    able.append(actor)
                elif actor.resumes_at < NEVER:
                    later.append((actor.resumes_at, actor))
        return able, later

    def go_on_meanwhile(self, chance: float) -> None:
        """Let workers take steps while a master is in the middle of its own."""
        if self.random.random() < chance and not self.is_orderly and self.now >= self.scarcity.table_is_full_until:
            for _ in range(self.random.randrange(1, 4)):
                able = [each for each in self._who_is_able()[0] if getattr(each, "pid", 0) in self.of_noun["worker"]]
                if able:
                    with self.scarcity.lifted():
                        self.random.choice(able).step()

    def _step(self, actor: Any) -> None:
        self._ready = None
        self.steps += 1
        self._steps_at_once += 1
        if self._steps_at_once > MOST_STEPS_AT_ONCE:
            raise Fault(f"{actor.name} spins: {MOST_STEPS_AT_ONCE} steps without a moment between them")
        actor.step()
        self._ready = None  # others may have looked in the middle of it
        actor.resumes_at = max(actor.resumes_at, self.now + self.delay())
        if isinstance(actor, Process) and actor.is_checked:
            for check in self.checks:
                check(self, actor)

    def close(self) -> None:
        """Close whatever is left open."""
        for process in list(self.processes.values()):
            process.release()
        for actor in [*self.clients.values(), *self.relays]:
            actor.release()
        self.processes.clear()
        self.clients.clear()


def _first(entry: tuple[int, Any]) -> int:
    return entry[0]
