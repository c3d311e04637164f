"""The engine: one queue of calls for all connections, and the greenlets that run them.

Calls that do not block cost one greenlet switch a loop iteration, whatever connections they came from; a call
that blocks keeps its greenlet, and the rest of the queue goes on in another. Runs in the worker; knows
connections only by what a reply needs. `docs/internals.md` tells why it is shaped like this.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Container, Iterator
from contextvars import Context
from operator import length_hint
from time import monotonic, monotonic_ns
from typing import Any, Callable

import gevent
from greenlet import getcurrent

from rpccluster.errors import ProtocolError
from rpccluster.ipc.scoreboard import Cell, CommonCell
from rpccluster.log import escaped, logger
from rpccluster.protocol.messages import MAX_MSGID, NOTIFY, REQUEST, RESPONSE
from rpccluster.worker.hot.caller import Call, Caller
from rpccluster.worker.hot.queue import ReadyQueue
from rpccluster.worker.hot.replies import LARGE_REPLY_BYTES, Replies
from rpccluster.worker.hot.runner import Runner, WorkerRetired, present_method
from rpccluster.worker.hot.slow_path import SlowPath
from rpccluster.worker.service.registry import Registry

__all__ = ["Engine"]

SLICE_SECONDS = 0.003  # how long a drain may run before the loop polls again
CLOCK_EVERY = 8  # calls between two looks at the clock

_SHORT = 1 << 30  # an int below this is one digit of CPython's, and compared sooner

_RUNNING_METHOD = int(CommonCell.RUNNING)
_ACTIVE_CALLS = int(Cell.ACTIVE_CALLS)
_CALLS = int(Cell.CALLS)
_TAKEN_AT = int(Cell.GREENLETS_TAKEN_AT)


class Engine:
    """Runs calls. ``enqueue``, ``enqueue_long``, ``long``, ``begun`` and ``schedule`` are for connections; the rest
    happens by itself."""

    def __init__(
        self,
        registry: Registry,
        cells: Any,
        max_greenlets: int,
        *,
        max_message_size: int = sys.maxsize,
        call_limit: int = 0,
        on_call_limit: Callable[[], None] | None = None,
    ) -> None:
        """``max_message_size`` bounds a reply, in bytes. ``on_call_limit`` is called once, when ``call_limit`` calls
        have ended; 0 means never."""
        self._hub = gevent.get_hub()
        self._loop = self._hub.loop
        self._registry = registry
        self._cells = cells
        self._max_greenlets = max_greenlets
        self._call_limit = call_limit or sys.maxsize
        self._on_call_limit = on_call_limit
        self._queue = ReadyQueue()
        self._ready, self.long = self._queue.ready, self._queue.long
        self.enqueue, self.enqueue_long = self._queue.add, self._queue.add_long
        self.begun = 0  # calls that were ever queued and not put off
        self._idle: list[Runner] = []
        self._runners: set[Runner] = set()
        self._stubborn: set[Runner] = set()  # whose calls were answered without them
        self._replies = Replies(registry, cells, max_message_size)
        self._slow_path = SlowPath(registry, cells, self._replies)
        self._starved: set[Caller] = set()
        self._epoch = 0
        self._slice_end = 0.0
        self.is_scheduled = False
        self._later = self._loop.timer(0.0, priority=-1)  # behind what was polled with it
        self.handled_large = False  # for the worker's beat, which clears it
        self.is_starved = False

    # -- what connections use

    def schedule(self) -> None:
        """Run what is in the queue, and send what has gathered, before the loop polls again."""
        if not self.is_scheduled:
            self.is_scheduled = True
            self._loop.run_callback(self._drain)

    def add_starved(self, connection: Caller) -> None:
        """Remember ``connection``, which stopped reading because all greenlets are taken."""
        self._starved.add(connection)

    @property
    def active_calls(self) -> int:
        """Calls that have begun and not ended."""
        return len(self._runners) - len(self._idle) - len(self._stubborn)

    @property
    def calls(self) -> int:
        """Calls that have ended."""
        return self.begun - self._queue.waiting - self.active_calls

    @property
    def is_quiet(self) -> bool:
        """Whether no call runs or waits to run, and no reply waits to be sent."""
        return not (self.active_calls or self._queue.waiting or self._replies.gathered_by)

    def leave(self, connection: Caller, data: bytes) -> None:
        """Put a reply that was made elsewhere behind those of ``connection``."""
        self._replies.put(connection, data)
        self.schedule()

    def running(self) -> Iterator[Call]:
        """The calls that have begun and not ended."""
        return ((runner.connection, runner.message) for runner in self._runners if runner.connection is not None)

    def unanswered(self) -> dict[Caller, list[Any]]:
        """The messages that have begun and not ended, or wait for their turn, by connection."""
        found = self._queue.waiting_messages()
        for connection, message in self.running():
            found.setdefault(connection, []).append(message)
        return found

    def withdraw(self, connections: Container[Caller]) -> dict[Caller, list[Any]]:
        """Take the messages of ``connections`` that wait for their turn out of the queue."""
        waiting = self._queue.withdraw(connections)
        self.begun -= sum(map(len, waiting.values()))
        return waiting

    def give_up(self, reason: str) -> None:
        """Interrupt every call that runs: each is answered with `WorkerRetired` and ``reason``. In the hub."""
        for runner in list(self._runners):
            runner.interrupt(WorkerRetired(reason))

    def leave_to_parent(self, leave: Callable[[int], None]) -> None:
        """In a forked child: the queue is the parent's. When the call that forked ends, ``leave`` ends the process."""
        self._epoch += 1
        self._ready.clear()
        self.long.clear()
        self.schedule = lambda: leave(0)  # type: ignore[method-assign]  # what a runner does whose queue is not its own
        self._replies.leave_at_exit(leave)

    def running_methods(self) -> Counter[str]:
        """How often each method runs."""
        return Counter(escaped(str(message[-2])) for _, message in self.running())

    def running_method(self) -> int:
        """The number of the method that the present greenlet runs; 0 if it runs none. For signal handlers."""
        return self._registry.numbers.get(present_method(), 0)

    # -- the loop's side: runs in the hub, never blocks

    def _drain(self) -> None:
        self.is_scheduled = False
        ready, long, idle, cells, replies = self._ready, self.long, self._idle, self._cells, self._replies
        if ready or long:
            cells[_ACTIVE_CALLS] = self.active_calls + 1
            self._slice_end = monotonic() + SLICE_SECONDS
        while ready or long:
            if long:
                self._queue.go_on()
            if not idle and not self._add_runner():
                break
            idle.pop().switch()
            self._epoch += 1  # the queue is ours again: whoever has blocked must not go on with it
            while ready and not length_hint(ready[0][1]):
                next(ready.popleft()[1], None)  # only that makes it let go of the messages
            if replies.gathered_by:  # sent now, since the next runner may keep it waiting
                replies.send()
            if (ready or long) and monotonic() > self._slice_end:
                self._go_on_later()
                break
        if replies.gathered_by:
            replies.send()
        cells[_ACTIVE_CALLS] = self.active_calls
        cells[_CALLS] = calls = self.calls
        cells[_RUNNING_METHOD] = 0
        if not idle and len(self._runners) >= self._max_greenlets and not cells[_TAKEN_AT]:
            cells[_TAKEN_AT] = monotonic_ns()
        if self._starved and not self.is_starved and not long:
            self._feed_starved()
        if calls >= self._call_limit:
            self._call_limit = sys.maxsize
            if self._on_call_limit is not None:
                self._on_call_limit()

    def _add_runner(self) -> bool:
        """One more idle runner; False when there are as many as there may be."""
        self.is_starved = len(self._runners) >= self._max_greenlets
        if not self.is_starved:
            runner = Runner(self._run, self._hub, self._answer_for)
            self._runners.add(runner)
            self._idle.append(runner)
        return not self.is_starved

    def _go_on_later(self) -> None:
        """Let the loop poll, then drain on: gevent reruns plain callbacks up to 50 times before it polls."""
        if not self.is_scheduled:
            self.is_scheduled = True
            self._later.start(self._drain, update=False)

    def _feed_starved(self) -> None:
        starved, self._starved = self._starved, set()
        for connection in starved:
            connection.resume_starved()

    # -- the runners' side

    def _run(self) -> None:
        """A runner's whole life: take calls until the queue is empty or no longer ours, then wait to be needed."""
        runner: Any = getcurrent()
        idle, park = self._idle, self._hub.switch
        while True:
            epoch = self._epoch
            try:
                self._take_calls(runner, epoch)
            except BaseException:  # nothing is known to; but without its runners a worker would serve nobody
                logger.critical("A fault of the engine", exc_info=True)
                if runner.connection is not None:
                    runner.connection.refuse(ProtocolError("found a fault of the engine in one of its calls"))
            if self._epoch != epoch:
                runner.gr_context = Context()
            runner.connection = runner.message = None  # which may be large
            idle.append(runner)
            if self._epoch != epoch:
                self._stubborn.discard(runner)
                self.is_starved = False
                self._cells[_TAKEN_AT] = 0
                self.schedule()
            while True:
                try:
                    park()
                    break
                except BaseException:  # a time limit or a kill that a call has left behind: it is over
                    continue

    def _answer_for(self, runner: Runner, error: BaseException) -> None:
        """Answer the call of ``runner``, which goes on in spite of ``error``. In the hub."""
        connection, runner.connection = runner.connection, None  # whatever it returns later is nobody's
        assert connection is not None
        self._stubborn.add(runner)
        self._replies.give_up(connection, runner.message, error)
        self.schedule()

    def _take_calls(self, runner: Runner, epoch: int) -> None:
        """Run call after call. The hot path: what stands here is paid by every call, hence its length.

        A batch is an iterator, and the first in the queue until it is used up: when a call of it blocks, the next
        runner goes on with the same one, so that each message is taken once and in its turn.

        The service's code may block wherever its values are used, packed, shown or forgotten. So nothing of the queue,
        and no reply, is touched behind any of that before the epoch was compared.
        """
        ready, cells, table, pack = self._ready, self._cells, self._registry.table, runner.pack
        replies, dirty, slow_path = self._replies, self._replies.gathered_by, self._slow_path
        context = runner.gr_context = Context()
        type_of, integer, array = type, int, list  # local names are found sooner
        numbers, shown = self._registry.numbers, None
        before_clock = CLOCK_EVERY
        while ready:
            connection, messages = ready[0]
            runner.connection = connection
            out = connection.out
            for message in messages:
                runner.message = message
                try:
                    kind, msgid, name, params = message
                except (TypeError, ValueError):
                    kind = msgid = name = params = NOTIFY
                if (
                    kind is not REQUEST  # an int: a false, nil or 0.0 in its place is no request
                    or type_of(msgid) is not integer
                    or (not 0 <= msgid < _SHORT and not 0 <= msgid <= MAX_MSGID)
                    or type_of(params) is not array
                ):
                    if slow_path.take(runner, connection, message):
                        self.handled_large = True
                    if context:
                        context = runner.gr_context = Context()
                    if self._epoch != epoch:
                        return
                    before_clock = 1  # it may have been long
                else:
                    try:
                        function = table[name]
                        if function is not shown:
                            shown, cells[_RUNNING_METHOD] = function, numbers[name]
                        data = pack((RESPONSE, msgid, None, function(*params)))
                    except BaseException as raised:  # a method's errors are its caller's affair, never the worker's
                        if type(name) is bytes:
                            self._slow_path.rename(message)
                            ready.appendleft((connection, iter([message])))
                            return
                        data = replies.failed(runner, raised)
                        pack = runner.pack
                        if not data and self._epoch == epoch:
                            continue
                    if context:  # the call left something in it: the next one gets a fresh one
                        context = runner.gr_context = Context()
                    if self._epoch != epoch:  # it blocked meanwhile; the queue is another runner's now
                        replies.put_late(runner, data)
                        return
                    if len(data) > LARGE_REPLY_BYTES:
                        replies.put_late(runner, data)
                        pack = runner.pack
                        if self._epoch != epoch:
                            return
                    elif out:
                        out.append(data)
                    else:
                        out.append(data)
                        dirty.append(connection)
                before_clock -= 1
                if not before_clock:
                    if monotonic() > self._slice_end:
                        return
                    before_clock = CLOCK_EVERY
            ready.popleft()
