"""The engine over the compiled hot path: the same face as the Python engine's, whose cold parts it shares.

Runs in the worker. `rpccluster.worker.hot.compiled._turn` has the connections and runs their calls; here are the
loop's watcher, the drain, and the counts. Import fails where the extension was not built.
"""

from __future__ import annotations

import _socket
from collections.abc import Collection
from typing import Any, Callable

from greenlet import getcurrent

from rpccluster.identity import NOBODY, Identity
from rpccluster.ipc.scoreboard import Cell
from rpccluster.ledger.layout import Shape
from rpccluster.system import READABLE
from rpccluster.system.stream_counters import counts_unix_sockets, stream_counters
from rpccluster.worker.access.access import Allowed
from rpccluster.worker.current import Runner
from rpccluster.worker.hot.compiled._turn import Bucket, CallLimit, Frame, Ledger, Port, Turn, View
from rpccluster.worker.hot.engine import PythonEngine, bounds_of
from rpccluster.worker.hot.room import Listener
from rpccluster.worker.hot.runners import Runners
from rpccluster.worker.hot.slow_path import SlowPath
from rpccluster.worker.live_options import LiveOptions
from rpccluster.worker.service.time_limit import FRESH

__all__ = ["CompiledEngine"]

_ACTIVE_CALLS = int(Cell.ACTIVE_CALLS)


class CompiledRunner(Runner):
    """A runner whose call is decoded only if it is asked for."""

    __slots__ = ("frame",)
    limit = CallLimit()

    def __init__(self, *arguments: Any) -> None:
        self.frame = Frame()
        super().__init__(*arguments)

    def interrupt(self, error: BaseException) -> None:
        """Throw ``error`` into the method of the present call; see `Runner.interrupt`."""
        self.frame.is_interrupted = True
        super().interrupt(error)

    @property
    def call(self) -> Any:
        """The decoded call."""
        return self.frame.get_call()

    @call.setter
    def call(self, call: Any) -> None:
        self.frame.set_call(call)

    @property
    def began_ns(self) -> int:
        """When the call has begun, if it is timed."""
        return self.frame.began

    @began_ns.setter
    def began_ns(self, nanoseconds: int) -> None:
        self.frame.began = nanoseconds

    @property
    def waited_ns(self) -> int:
        """How long it has waited before."""
        return self.frame.waited

    @waited_ns.setter
    def waited_ns(self, nanoseconds: int) -> None:
        self.frame.waited = nanoseconds

    @property
    def outbox(self) -> Any:
        """Where the reply goes; None if no call runs, or it was answered already."""
        return self.frame.port

    @outbox.setter
    def outbox(self, outbox: Any) -> None:
        self.frame.port = outbox


class CompiledRunners(Runners):
    """Runners that run the compiled loop."""

    def __init__(self, turn: Turn, *arguments: Any) -> None:
        self._turn = turn
        super().__init__(*arguments)
        turn.runners = self

    def _make(self, which: int) -> Runner:
        return CompiledRunner(self._run, self.hub, which, self._answer_for)

    def _run(self) -> None:
        """Run calls; a frame of Python's, by which the stack tells the runner."""
        runner: Any = getcurrent()
        self._turn.run(runner)


class CompiledEngine(PythonEngine):
    """Runs the calls of all connections of a worker, by compiled code."""

    name = "compiled"

    def _begin(self, hub: Any, options: LiveOptions, ledger: tuple[Any, Shape] | None) -> None:
        slow_path = SlowPath(self._room, self._registry, self._cells, self._replies)
        self.has_ledger = ledger is not None
        self._ledger = Ledger(*ledger) if ledger is not None else None
        self._turn = turn = Turn(self._room, self._cells, slow_path, self._ledger)
        most = options.max_greenlets
        self._runners = CompiledRunners(turn, hub, self._room, self._registry, self._cells, slow_path, most)
        self._access.make_buckets_with(Bucket)
        self._access.follow(self._set_methods)
        self._watcher = self._loop.io(turn.fileno(), READABLE)
        self._watcher.start(self._on_ready)

    def _arrived_at(self) -> float:
        return self._turn.arrived_at

    def _set_methods(self, allowed: Allowed) -> None:
        """Look up what some peers may call in what is ``allowed`` to them now."""
        if allowed.view is None:
            allowed.view = View()
        registry = self._registry
        known, methods = self._room.tally.known, list(registry.methods)
        self._turn.set_methods(allowed.view, methods, *allowed.plain, registry.numbers, allowed.buckets, known)

    def _follow_options(self, options: LiveOptions, changed: frozenset[str]) -> None:
        self._turn.set_bounds(bounds_of(options), options.max_pending_calls)
        self._runners.set_most(options.max_greenlets)

    def connect(
        self,
        sock: _socket.socket,
        peer: str,
        listener: Listener,
        identity: Identity = NOBODY,
        number: int = 0,
        *,
        is_new: bool = False,
    ) -> tuple[Any, Any]:
        """Receive calls on ``sock``, and send their replies; one object is both ends."""
        port = Port(self._turn, sock.fileno(), peer, listener, identity)
        port.allow(self._access.allowed(identity))
        if number and self.has_ledger:
            self._note(port, sock, number, is_new)
        port.start()
        return port, port

    def _note(self, port: Port, sock: Any, number: int, is_new: bool) -> None:
        """Let the ledger have a connection, if its stream can be counted and there is room."""
        if sock.family == _socket.AF_UNIX:
            if counts_unix_sockets():
                port.take_unix_note(number)
            return
        if is_new:
            port.take_note(number, 0, 0)
            return
        try:
            counters = stream_counters(sock)
        except OSError:
            return
        if counters is not None:  # else it is just ending
            port.take_note(number, counters.read, counters.written)

    @property
    def freed_bytes(self) -> int:
        """How much memory the engine has freed itself since it was given back."""
        return 0 if self._ledger is None else self._ledger.freed_bytes

    def give_back_freed_memory(self) -> None:
        """Let the kernel have memory that the engine has freed itself: in the ledger."""
        if self._ledger is not None:
            self._ledger.give_back_freed_memory()

    def fileno(self) -> int:
        """Return the descriptor of the epoll set with all connections."""
        return self._turn.fileno()

    @property
    def begun(self) -> int:
        """Number of calls that have ever begun."""
        return self._turn.begun

    @property
    def is_quiet(self) -> bool:
        """Whether no call runs or waits to run, and no reply waits to be sent."""
        turn = self._turn
        return not (self.active_calls or self._room.waiting_calls or turn.has_work or turn.has_dirty)

    def unanswered(self) -> dict[Any, list[Any]]:
        """Return the calls that have begun and not ended, or wait for their turn, by outbox."""
        found = self._room.look()
        for outbox, calls in self._turn.unanswered().items():
            found.setdefault(outbox, []).extend(calls)
        for outbox, call in self.running():
            found.setdefault(outbox, []).append(call)
        return found

    def withdraw(self, outboxes: Collection[Any]) -> dict[Any, list[Any]]:
        """Take the calls of ``outboxes`` out that were held back, or begin anew elsewhere; all others are input yet."""
        taken = super().withdraw(outboxes)
        self._turn.begun -= sum(map(len, taken.values()))
        return taken

    def leave_to_parent(self, leave: Callable[[int], None]) -> None:
        """Leave all connections to the parent, in a forked child; ``leave`` ends it after the call that forked."""
        self._watcher.stop()
        self._turn.leave_to_parent()
        self._leave_to_parent(leave)

    def close(self) -> None:
        """Let go of the descriptor that watches the connections, which are closed."""
        super().close()
        self._watcher.stop()
        self._watcher.close()
        self._turn.close()

    # -- the loop's side

    def _on_ready(self) -> None:
        self._turn.poll()
        self._drain()

    def _drain(self) -> None:
        room, turn, runners = self._room, self._turn, self._runners
        room.is_scheduled = False
        if room.held:
            self._let_go()
        if turn.begin_slice() or room.held:
            self._cells[_ACTIVE_CALLS] = runners.active + self._parked.count + 1
            self._run_turn()
        turn.send_dirty()
        self._count()
        if FRESH or room.held:
            self._look_at_the_rest()
        if room.waiting and not room.is_full:
            self._let_them_be_read()

    def _run_turn(self) -> None:
        """Let runners take calls until there are none, or the loop has to poll."""
        turn, runners, idle, held = self._turn, self._runners, self._runners.idle, self._room.held
        while True:
            turn.only_again = False
            if idle or runners.add_one():
                if None in held:  # they came before all that wait
                    turn.only_again = True
                    turn.run_again([self._room.let_one_go(None)])
                idle.pop().switch()
            elif runners.ushers:
                runners.ushers.pop().switch()
            else:
                turn.hold_back(self._room.waiting)
                return
            has_more = turn.switched()
            if not has_more and not (None in held and idle):
                return
            if turn.is_over:
                turn.keep()
                self._go_on_later()
                return

    def _let_go(self) -> bool:
        """Let calls of native kinds begin that were held back, as far as there is room. Returns True."""
        room = self._room
        room.let_go()
        self._turn.run_again([(outbox, call, came) for outbox, calls, came in room.ready for call in calls])
        room.ready.clear()
        return True
