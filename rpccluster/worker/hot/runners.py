"""The greenlets that run calls, and the hot path of a call; `slow_path` has the rest. Runs in the worker.

A runner takes one call after another. If a call blocks, its runner keeps its greenlet, and another one goes on with the
queue. An epoch shows which runner has the queue: the engine raises it after each switch, so a runner that finds another
epoch than its own has blocked meanwhile. It puts its reply in place, becomes idle, and schedules a drain that sends.

Code of the service runs between the engine's own steps, and may block anywhere: in a value's ``items()``, an
exception's ``__str__``, a log handler, a ``__del__``. So a runner makes its reply first, then compares the epoch, and
only then touches the queue or an outbox. It packs with a Packer of its own, because another runner would mix its output
into a shared one. A Packer costs 0.1 µs and 4 KiB.

The clock is read every `CLOCK_EVERY` calls, and after each call that came packed, since it may have been long. A
method's name may be of type bin: such a request misses the table of methods, and goes back into the queue with a name
of type str, so that other requests pay nothing for it.
"""

from __future__ import annotations

from contextvars import Context
from time import monotonic_ns
from typing import Any

from greenlet import getcurrent

from rpccluster.errors import ProtocolError
from rpccluster.ipc.scoreboard import Cell, CommonCell
from rpccluster.log import escaped, logger
from rpccluster.protocol.codec import pack_response
from rpccluster.protocol.messages import (
    MAX_MSGID,
    REQUEST,
    RESPONSE,
)
from rpccluster.worker.current import Call, Runner
from rpccluster.worker.hot.outbox import LARGE_REPLY_BYTES
from rpccluster.worker.hot.room import Room
from rpccluster.worker.hot.slow_path import SlowPath, rename
from rpccluster.worker.service.registry import Registry

__all__ = ["Runners"]

_USUAL, _WHEN_FULL = 0, 1  # the table of a connection in which a runner finds methods

CLOCK_EVERY = 8  # calls between two looks at the clock, unless calls are timed

_SHORT = 1 << 30  # an int below this is one digit of CPython's, and compared sooner

_THE_END = object()  # what a runner is woken with that is not needed any more

_RUNNING_METHOD = int(CommonCell.RUNNING)
_TAKEN_AT = int(Cell.GREENLETS_TAKEN_AT)


class Runners:
    """All runners of a worker; ``idle`` holds those that wait for work."""

    the_end = _THE_END

    def __init__(self, hub: Any, room: Room, registry: Registry, cells: Any, slow_path: SlowPath, most: int) -> None:
        """``most`` is ``max_greenlets``."""
        self.hub = hub
        self._room = room
        self._registry = registry
        self._cells = cells
        self._slow_path = slow_path
        self._tally = room.tally
        self._most = most
        self.epoch = 0  # raised by the engine: a runner that has blocked finds another than its own
        self.slice_end = 0  # monotonic nanoseconds, when the queue is to be left until the loop has polled
        self.all: set[Runner] = set()
        self.idle: list[Runner] = []
        self._stubborn: set[Runner] = set()  # whose calls were answered without them
        #: The one runner that is there while all others are taken, when it is idle: it hands over the calls that need
        #: no greenlet, and holds the others back. There is none if all calls need one.
        self.ushers: list[Runner] = []
        self.usher = self._make(_WHEN_FULL)
        if registry.table_when_full:
            self.ushers.append(self.usher)

    @property
    def active(self) -> int:
        """Number of calls that have begun and not ended, without those that are answered later."""
        return len(self.all) - len(self.idle) - len(self._stubborn)

    @property
    def are_taken(self) -> bool:
        """Whether every allowed runner runs a call."""
        return not self.idle and len(self.all) >= self._most

    def set_most(self, most: int) -> None:
        """Allow ``most`` runners from now on; surplus ones end when they are idle."""
        self._most = most
        while self.idle and len(self.all) > most:
            runner = self.idle.pop()
            self.all.discard(runner)
            self._room.loop.run_callback(runner.switch, _THE_END)
        if not self.are_taken:
            self._make_room()

    def _make_room(self) -> None:
        """Let calls run that waited for a runner."""
        self._room.is_full = False
        self._cells[_TAKEN_AT] = 0
        self._room.schedule()

    def add_one(self) -> bool:
        """Make one more idle runner. Returns False if there are as many as allowed."""
        is_full = len(self.all) >= self._most
        self._room.is_full = is_full and not self._registry.table_when_full  # else calls are held back one by one
        if not is_full:
            runner = self._make(_USUAL)
            self.all.add(runner)
            self.idle.append(runner)
        return not is_full

    def _make(self, which: int) -> Runner:
        return Runner(self._run, self.hub, which, self._answer_for)

    def calls(self) -> list[Call]:
        """Return the calls that have begun and not ended."""
        return [Call(runner.outbox, runner.call) for runner in self.busy()]

    def busy(self) -> list[Runner]:
        """Return the runners of these calls."""
        return [runner for runner in self.all if runner.outbox is not None]

    def _answer_for(self, runner: Runner, error: BaseException) -> None:
        """Answer the call of ``runner``, which goes on after ``error``. Runs in the hub."""
        outbox, runner.outbox = runner.outbox, None  # what the method returns later is dropped
        call = runner.call
        assert outbox is not None
        self._stubborn.add(runner)
        name, params = call[-2:]
        text = self._slow_path.replies.error(outbox, name, params, error)
        self._tally.end(runner, text)
        logger.warning("Method %s goes on after its interruption; its result will be dropped", escaped(name))
        if call[0] is REQUEST:
            outbox.put(pack_response(call[1], text, None))
        else:
            outbox.end_notification()
        self._room.schedule()

    # -- in the runners' greenlets

    def _run(self) -> None:
        """Take calls until the queue is empty or another runner's, then wait for work; end as a surplus runner."""
        runner: Any = getcurrent()
        park = self.hub.switch
        while True:
            epoch = self.epoch
            try:
                self._take_calls(runner, epoch)
            except BaseException:  # no known fault; but without its runners a worker would serve nobody
                logger.critical("The engine failed in a call, whose connection is closed", exc_info=True)
                if runner.outbox is not None:
                    runner.outbox.refuse(ProtocolError("found a fault of the engine in one of its calls"))
            if self.epoch != epoch:
                runner.gr_context = Context()
            runner.outbox = runner.call = None  # which may be large
            if self.retire(runner, self.epoch != epoch):
                return
            while True:
                try:
                    if park() is _THE_END:
                        return
                    break
                except BaseException:  # a time limit or a kill that a call has left behind: it is over
                    continue

    def retire(self, runner: Runner, has_blocked: bool) -> bool:
        """Note that ``runner`` waits for work, or return True if it is one too many and has to end."""
        if has_blocked:
            self._stubborn.discard(runner)
            self._make_room()
        is_one_too_many = len(self.all) > self._most and runner is not self.usher
        if runner is self.usher:
            self.ushers.append(runner)
        elif is_one_too_many:
            self.all.discard(runner)
        else:
            self.idle.append(runner)  # last: who stands there is woken, and must not wait for anything else
        return is_one_too_many

    def _take_calls(self, runner: Runner, epoch: int) -> None:
        """Run one call after another. The hot path: each call pays for every line here, and for each function into
        which it would be cut, hence its length.

        A batch is an iterator, and the first in the queue until it is used up: if a call of it blocks, the next runner
        goes on with the same one, so that each call is taken once and in its turn.

        The service's code may block wherever its values are used, packed, shown or dropped. So after any of that,
        nothing of the queue and no reply is touched before the epoch was compared.
        """
        ready, cells, which, pack = self._room.ready, self._cells, runner.which, runner.pack
        dirty = self._room.dirty
        context = runner.gr_context = Context()
        type_of, integer, array = type, int, list  # local names are found sooner
        numbers, shown = self._registry.numbers, None
        known, count, counted = self._tally.known, self._tally.count, None
        every, began = (1, monotonic_ns()) if count else (CLOCK_EVERY, 0)
        before_clock = every
        while ready:
            outbox, calls, arrived_at = ready[0]
            runner.outbox = outbox
            replies, table = outbox.replies, outbox.tables[which]
            for call in calls:
                runner.call = call
                try:
                    kind, msgid, name, params = call
                except (TypeError, ValueError):
                    kind = None  # whatever it is, it is no request
                if (
                    kind is not REQUEST  # an int: a false, nil or 0.0 in its place is no request
                    or type_of(msgid) is not integer
                    or (not 0 <= msgid < _SHORT and not 0 <= msgid <= MAX_MSGID)
                    or type_of(params) is not array
                ):
                    self._slow_path.take(runner, outbox, call)
                    shown = counted = None
                    if context:
                        context = runner.gr_context = Context()
                    if self.epoch != epoch:
                        return
                    before_clock = 1  # it may have been long
                else:
                    try:
                        function = table[name]
                        if function is not shown:
                            shown, cells[_RUNNING_METHOD], counted = function, numbers[name], known.get(name)
                        reply = pack((RESPONSE, msgid, None, function(*params)))
                    except BaseException as raised:  # a method's errors are its caller's affair, never the worker's
                        if type(name) is bytes:
                            rename(call)
                            ready.appendleft((outbox, iter([call]), arrived_at))
                            return
                        shown = counted = None
                        self._tally.note_begin(runner, arrived_at, began)
                        reply = self._slow_path.failed(runner, raised)
                        pack = runner.pack
                        if not reply and self.epoch == epoch:  # nothing is sent now
                            if context:
                                context = runner.gr_context = Context()
                            if self.epoch != epoch or monotonic_ns() > self.slice_end:
                                return
                            began = self._tally.now()
                            continue
                    if context:  # the call left something in it: the next one gets a fresh one
                        context = runner.gr_context = Context()
                    if self.epoch != epoch:  # it blocked meanwhile; the queue is another runner's now
                        if counted is None:
                            self._slow_path.put_late(runner, reply)
                        else:
                            self._tally.note_begin(runner, arrived_at, began)
                            self._slow_path.put_result(runner, reply)
                        return
                    if len(reply) > LARGE_REPLY_BYTES:
                        if counted is None:
                            self._slow_path.put(runner, reply)
                        else:
                            self._tally.note_begin(runner, arrived_at, began)
                            self._slow_path.put_result(runner, reply)
                            shown = counted = None
                        pack = runner.pack
                        if self.epoch != epoch:
                            return
                    elif replies:
                        replies.append(reply)
                    else:
                        replies.append(reply)
                        dirty.append(outbox)
                before_clock -= 1
                if not before_clock:
                    now = monotonic_ns()
                    if count is not None:
                        if counted is not None:
                            count(counted, runner, arrived_at, began, now)
                        began = now
                    if now > self.slice_end:
                        return
                    before_clock = every
            if self.epoch != epoch:  # a finalizer has waited: the batch that stands first may be another one
                return
            ready.popleft()
