"""The engine: the hot room's face to the outside, and the loop's side of running calls. Runs in the worker.

Why a call costs little:

- One watcher a connection, started once. There is no greenlet a connection, so no pair of wait and switch, and no
  epoll_ctl a call. The only system calls of a call are one recv and one send, and an epoll_wait an iteration.
- One queue for all connections, and one switch an iteration: calls that do not block share a runner.
- A call that blocks keeps its runner. Then the switch returns with the queue not empty, and another runner goes on with
  the rest, so no call waits behind a blocked one.
- Replies gather in their outbox and leave in one send, after each runner's turn: no gathered reply waits behind a
  runner that blocks.
- A drain ends after `SLICE_NS`, sends, and goes on by a timer of 0 seconds, not by ``run_callback``: gevent reruns
  plain callbacks up to 50 times before it polls. So a client with 100,000 calls in flight does not keep the sockets of
  others waiting.
- Counters go to the scoreboard once a drain. The access log and time limits wrap a method at boot if they are wanted; a
  call without them pays nothing.
"""

from __future__ import annotations

import _socket
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from time import monotonic, monotonic_ns
from typing import Any, Callable

import gevent

from rpccluster.errors import ProtocolError
from rpccluster.identity import NOBODY, Identity
from rpccluster.ipc.scoreboard import Cell, CommonCell
from rpccluster.ledger.layout import Shape
from rpccluster.log import escaped
from rpccluster.protocol.bounded import CALL, CANCEL
from rpccluster.protocol.outline import Bounds
from rpccluster.worker.access.access import Access
from rpccluster.worker.current import Call, Runner, WorkerRetired
from rpccluster.worker.hot.control.bounded import BoundedCalls
from rpccluster.worker.hot.control.cancelling import Cancelling
from rpccluster.worker.hot.inbox import Inbox
from rpccluster.worker.hot.outbox import Outbox
from rpccluster.worker.hot.parked import ParkedCalls
from rpccluster.worker.hot.replies import Replies
from rpccluster.worker.hot.room import Happened, Listener, Room, is_used_up
from rpccluster.worker.hot.runners import Runners
from rpccluster.worker.hot.slow_path import SlowPath
from rpccluster.worker.live_options import LiveOptions
from rpccluster.worker.service.registry import Registry
from rpccluster.worker.service.time_limit import FRESH, arm_limits
from rpccluster.worker.tally import Silent

__all__ = ["PythonEngine", "bounds_of"]

SLICE_NS = 3_000_000  # how long a drain may run before the loop polls again

_ITS_TURN = Happened.ITS_TURN
_RUNNING_METHOD = int(CommonCell.RUNNING)
_ACTIVE_CALLS = int(Cell.ACTIVE_CALLS)
_CALLS = int(Cell.CALLS)
_TAKEN_AT = int(Cell.GREENLETS_TAKEN_AT)


class PythonEngine:
    """Runs the calls of all connections of a worker."""

    name = "python"
    has_ledger = False

    def __init__(
        self,
        registry: Registry,
        cells: Any,
        options: LiveOptions,
        access: Access,
        *,
        on_refused: Callable[[str, ProtocolError], None],
        call_limit: int = 0,
        on_call_limit: Callable[[], None] | None = None,
        ledger: tuple[Any, Shape] | None = None,
        tally: Silent | None = None,
    ) -> None:
        """It follows ``options``. ``on_refused`` gets the peer and the error of each unreadable call.

        ``on_call_limit`` is called once, when ``call_limit`` calls have ended; 0 means never. ``ledger`` is the mapped
        file, and its shape, in which it may note what its connections need to go on if this process is killed.
        """
        hub = gevent.get_hub()
        self._loop = hub.loop
        self._cells = cells
        self._call_limit = call_limit or sys.maxsize
        self._on_call_limit = on_call_limit
        self._room = Room(self._loop, bounds_of(options), options.max_pending_calls)
        self._room.schedule = self._schedule
        self._room.tally = tally = tally or Silent()
        tally.arrived_at = self._arrived_at
        tally.know([*registry.names, CALL, CANCEL])
        self._replies = Replies(registry.methods, cells, options, on_refused)
        self._parked = self._room.parked = ParkedCalls(self._room, self._replies)
        self._room.leading = registry.leading
        self._room.tables, self._room.refuse_rate = registry.tables, access.refuse_rate
        self._access = access
        self._registry = registry
        self._begin(hub, options, ledger)
        cancelling = self._room.cancelling = Cancelling(self._room, self._runners, self._replies, registry)
        registry.add_own(CALL, BoundedCalls(registry.numbers, cells, self._arrived_at).call)
        registry.add_own(CANCEL, cancelling.cancel)
        self._later = self._loop.timer(0.0, priority=-1)  # behind what was polled with it
        options.follow(self._follow_options)
        self._follow_options(options, frozenset())

    def _begin(self, hub: Any, options: LiveOptions, ledger: tuple[Any, Shape] | None) -> None:
        """Make the parts that another build of this engine replaces."""
        slow_path = SlowPath(self._room, self._registry, self._cells, self._replies)
        self._runners = Runners(hub, self._room, self._registry, self._cells, slow_path, options.max_greenlets)

    def _arrived_at(self) -> float:
        """Return when the call that begins now has come, in monotonic seconds."""
        ready = self._room.ready
        return ready[0][2] if ready else self._room.turn_at

    def _follow_options(self, options: LiveOptions, changed: frozenset[str]) -> None:
        """Copy the options that each call, or each turn of the loop, needs."""
        self._room.max_pending_calls = options.max_pending_calls
        self._room.decoder.set_bounds(bounds_of(options))
        self._runners.set_most(options.max_greenlets)

    def set_call_limit(self, call_limit: int) -> None:
        """Let ``call_limit`` calls end from the worker's start before it says so; 0 means never."""
        self._call_limit = call_limit or sys.maxsize

    def connect(
        self,
        sock: _socket.socket,
        peer: str,
        listener: Listener,
        identity: Identity = NOBODY,
        number: int = 0,
        *,
        is_new: bool = False,
    ) -> tuple[Inbox, Outbox]:
        """Receive calls on ``sock``, a non-blocking socket, and send their replies.

        ``peer`` names the client in log lines, ``identity`` is what is known of it; ``listener`` learns what has
        happened. The caller owns the socket. A connection that has a ``number`` is noted by it in the ledger; if it
        ``is_new``, nothing was read or written before.
        """
        outbox = Outbox(self._room, sock, peer, listener, identity)
        outbox.allow(self._access.allowed(identity))
        return Inbox(self._room, sock, outbox, listener), outbox

    def allow_anew(self, outboxes: Iterable[Any]) -> None:
        """Let the peers of ``outboxes`` call what the rules allow now."""
        for outbox in outboxes:
            outbox.allow(self._access.allowed(outbox.identity))

    def fileno(self) -> int:
        """Return the descriptor of the epoll set with all connections."""
        return int(self._loop.fileno())

    # -- calls

    @property
    def active_calls(self) -> int:
        """Number of calls that have begun and not ended."""
        return self._runners.active + self._parked.count

    @property
    def begun(self) -> int:
        """Number of calls that were ever received, without the withdrawn ones."""
        return self._room.begun

    @property
    def calls(self) -> int:
        """Number of calls that have ended."""
        return self.begun - self._room.waiting_calls - self.active_calls

    @property
    def is_quiet(self) -> bool:
        """Whether no call runs or waits to run, and no reply waits to be sent."""
        return not (self.active_calls or self._room.waiting_calls or self._room.dirty)

    @property
    def is_full(self) -> bool:
        """Whether calls wait because all greenlets are taken."""
        return self._room.is_full

    @property
    def dropped_replies(self) -> int:
        """Number of replies that were dropped because their connection had ended."""
        return self._room.dropped_replies

    def has_handled_large(self) -> bool:
        """Return whether a large message came or went since the last call of this."""
        large, self._room.handled_large = self._room.handled_large, False
        return large

    @property
    def freed_bytes(self) -> int:
        """How much memory the engine has freed itself since it was given back."""
        return 0

    def give_back_freed_memory(self) -> None:
        """Let the kernel have memory that the engine has freed itself; here the C library has it."""

    def running(self) -> list[Call]:
        """Return the calls that have begun and not ended; each one's sender is its `Outbox`."""
        return [*self._runners.calls(), *self._parked.calls()]

    def held(self) -> list[Call]:
        """Return the calls that hold a greenlet."""
        return self._runners.calls()

    def busy_runners(self) -> list[Runner]:
        """Return the greenlets of these calls."""
        return self._runners.busy()

    def parked_since(self) -> Iterator[tuple[float, str, Any]]:
        """Return of each call that is answered later since when (monotonic seconds), its method, and its `Outbox`."""
        return self._parked.since()

    def running_msgids(self, outboxes: Collection[Outbox]) -> dict[Outbox, list[int]]:
        """Return the msgids of the requests of ``outboxes`` that have begun and not ended.

        Calls of other outboxes that are answered later are not looked at, since there may be very many.
        """
        found = {outbox: self._parked.msgids(outbox) for outbox in outboxes}
        for outbox, call in self._runners.calls():
            if outbox in found and len(call) == 4:  # nobody waits for a notification
                found[outbox].append(call[1])
        return found

    def running_methods(self) -> Counter[str]:
        """Count how often each method runs, in the calls that hold a greenlet."""
        return Counter(escaped(str(call.message[-2])) for call in self._runners.calls())

    def unanswered(self) -> dict[Outbox, list[Any]]:
        """Return the calls that have begun and not ended, or wait for their turn, by outbox."""
        found = self._room.look()
        for outbox, call in self.running():
            found.setdefault(outbox, []).append(call)
        return found

    def withdraw(self, outboxes: Collection[Outbox]) -> dict[Outbox, list[Any]]:
        """Take the calls of ``outboxes`` out that have not begun, or begin anew elsewhere; see `Inbox.queue_again`."""
        taken = self._parked.withdraw(outboxes)
        self._room.begun -= sum(map(len, taken.values()))
        for outbox, calls in self._room.withdraw(outboxes).items():
            taken.setdefault(outbox, []).extend(calls)
        return taken

    def answer(self, outbox: Outbox, reply: bytes) -> None:
        """Send a reply that was made elsewhere, behind those of ``outbox``."""
        outbox.put(reply)
        self._schedule()

    def cancel_moved(self, number: int, msgid: int, is_gone: bool) -> None:
        """End calls that run here of a connection that has moved; see `rpccluster.ipc.messages.CancelCall`."""
        self._room.cancelling.cancel_moved(number, msgid, is_gone)

    def give_up(self, reason: str) -> None:
        """End every running call with the answer `WorkerRetired` and ``reason``. Runs in the hub."""
        for runner in list(self._runners.all):
            runner.interrupt(WorkerRetired(reason))
        self._parked.give_up(WorkerRetired(reason))

    def leave_to_parent(self, leave: Callable[[int], None]) -> None:
        """Leave the queue to the parent, in a forked child; ``leave`` ends the process after the call that forked."""
        self._runners.epoch += 1
        self._leave_to_parent(leave)

    def _leave_to_parent(self, leave: Callable[[int], None]) -> None:
        self._room.clear()
        self._parked.leave_to_parent()
        self._room.schedule = lambda: leave(0)  # what a runner does when the queue is not its own
        self._replies.leave_at_exit(leave)

    def close(self) -> None:
        """Let go of what another process cannot have; the connections are closed."""
        self._parked.close()

    # -- the loop's side: runs in the hub, never blocks

    def go_on(self) -> None:
        """Go on with calls that were held back, since there may be room for them."""
        self._schedule()

    def _schedule(self) -> None:
        """Schedule a drain before the loop polls again: run the queue, and send gathered replies."""
        if not self._room.is_scheduled:
            self._room.is_scheduled = True
            self._room.turn_at = monotonic()
            self._loop.run_callback(self._drain)

    def _go_on_later(self) -> None:
        """Let the loop poll, then drain on."""
        if not self._room.is_scheduled:
            self._room.is_scheduled = True
            self._room.turn_at = monotonic()
            self._later.start(self._drain, update=False)

    def _drain(self) -> None:
        room, runners, cells = self._room, self._runners, self._cells
        room.is_scheduled = False
        ready, long, dirty, idle = room.ready, room.long, room.dirty, runners.idle
        may_go_on = True
        if ready or long or room.held:
            cells[_ACTIVE_CALLS] = runners.active + self._parked.count + 1
            runners.slice_end = monotonic_ns() + SLICE_NS
            if room.held:
                may_go_on = self._let_go()
        while (ready or long) and may_go_on:
            if long:
                room.go_on()
            if idle or runners.add_one():
                idle.pop().switch()
            elif runners.ushers:
                runners.ushers.pop().switch()
            else:
                for outbox, calls in room.look().items():
                    room.cancelling.look_at(outbox, calls)
                break
            runners.epoch += 1  # the queue is ours again: a runner that has blocked must not go on with it
            while ready and is_used_up(ready[0][1]):
                next(ready.popleft()[1], None)  # makes the iterator let go of the calls
            if dirty:  # sent now, since the next runner may keep it waiting
                self._send(dirty)
            if (ready or long) and monotonic_ns() > runners.slice_end:
                self._go_on_later()
                break
        if dirty:
            self._send(dirty)
        self._count()
        if FRESH or room.held:
            self._look_at_the_rest()
        if room.waiting and not room.is_full and not long:
            self._let_them_be_read()

    def _look_at_the_rest(self) -> None:
        """See to the calls that go on, and to those that are held back and may begin: the one before took no room."""
        arm_limits(self._loop)
        if self._room.has_free_kind:
            self._go_on_later()

    def _let_go(self) -> bool:
        """Let calls begin that were held back, as far as there is room. Returns whether the queue may go on then.

        Calls that wait for a greenlet came before all in the queue. So the usher looks through the queue first, and
        puts what wants a greenlet behind them.
        """
        room, runners = self._room, self._runners
        room.let_go()
        while None in room.held and (room.ready or room.long):
            if not runners.ushers or self._is_slice_over():
                return False
            if room.long:
                room.go_on()
            self._switch(runners.ushers.pop())
        while None in room.held and (runners.idle or runners.add_one()):
            if self._is_slice_over():
                return False
            room.ready.append(room.let_one_go(None))
            self._switch(runners.idle.pop())
        return True

    def _switch(self, runner: Runner) -> None:
        """Let ``runner`` take calls, as `_drain` does it."""
        ready, dirty = self._room.ready, self._room.dirty
        runner.switch()
        self._runners.epoch += 1
        while ready and is_used_up(ready[0][1]):
            next(ready.popleft()[1], None)
        if dirty:
            self._send(dirty)

    def _is_slice_over(self) -> bool:
        """Return whether the loop is to poll before the drain goes on, and see to that."""
        is_over = monotonic_ns() > self._runners.slice_end
        if is_over:
            self._go_on_later()
        return is_over

    def _send(self, dirty: list[Outbox]) -> None:
        for outbox in dirty:
            outbox.flush()
        dirty.clear()

    def _count(self) -> None:
        """Write the counts after a drain into the worker's cells."""
        cells, runners = self._cells, self._runners
        cells[_ACTIVE_CALLS] = active = runners.active + self._parked.count
        cells[_CALLS] = calls = self.begun - self._room.waiting_calls - active
        cells[_RUNNING_METHOD] = 0
        if runners.are_taken and not cells[_TAKEN_AT]:
            cells[_TAKEN_AT] = monotonic_ns()
        if calls >= self._call_limit:
            self._call_limit = sys.maxsize
            if self._on_call_limit is not None:
                self._on_call_limit()

    def _let_them_be_read(self) -> None:
        """Tell the connections that had to wait for their turn."""
        waiting, self._room.waiting = self._room.waiting, set()
        for listener in waiting:
            listener.handle(_ITS_TURN)


def bounds_of(options: LiveOptions) -> Bounds:
    """Return what bounds a message."""
    return Bounds(options.max_message_size, options.max_depth)
