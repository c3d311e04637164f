"""The engine: one queue of calls for all connections, and the greenlets that run them.

Calls that do not block cost one greenlet switch a loop iteration, whatever connections they came from; a call
that blocks keeps its greenlet, and the rest of the queue goes on in another. Runs in the worker; knows
connections only by what a reply needs. `docs/internals.md` tells why it is shaped like this.
"""

from __future__ import annotations

import sys
from collections import deque
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Any, Callable

import gevent
from greenlet import greenlet

from rpccluster.ipc.scoreboard import Cell
from rpccluster.log import escaped, logger
from rpccluster.protocol.codec import make_packer
from rpccluster.protocol.messages import RESPONSE
from rpccluster.worker.dispatch import Registry, error_text, is_misfit, not_found_text

if TYPE_CHECKING:
    from rpccluster.worker.connection import Connection

__all__ = ["CallLog", "Engine", "bound"]

SLICE_SECONDS = 0.003  # how long a drain may run before the loop polls again
CLOCK_EVERY = 8  # calls between two looks at the clock
LARGE_REPLY_BYTES = 512  # replies above this count against the connection at once
GATHER_BYTES = 65_536  # what may gather of those before it is sent

_RUNNING_METHOD = int(Cell.RUNNING_METHOD)
_ACTIVE_CALLS = int(Cell.ACTIVE_CALLS)
_CALLS = int(Cell.CALLS)
_ERRORS = int(Cell.ERRORS)

#: Told of each call when the access log is on: connection, method's name, seconds, error text or None.
CallLog = Callable[["Connection", str, float, "str | None"], None]


class Engine:
    """Runs calls. ``append`` and ``schedule`` are for connections; everything else happens by itself."""

    def __init__(
        self,
        registry: Registry,
        cells: Any,
        max_greenlets: int,
        *,
        call_limit: int = 0,
        on_call_limit: Callable[[], None] | None = None,
        call_log: CallLog | None = None,
    ) -> None:
        """``on_call_limit`` is called once, when ``call_limit`` calls have ended; 0 means never."""
        self._hub = gevent.get_hub()
        self._loop = self._hub.loop
        self._registry = registry
        self._cells = cells
        self._max_greenlets = max_greenlets
        self._call_log = call_log
        self._call_limit = call_limit or sys.maxsize
        self._on_call_limit = on_call_limit
        self._pack = make_packer().pack
        self._ready: deque[tuple[Connection, list[Any]]] = deque()
        self.append = self._ready.append
        self._idle: list[_Runner] = []
        self._runners: set[_Runner] = set()
        self._dirty: list[Connection] = []
        self._starved: set[Connection] = set()
        self._epoch = 0
        self._slice_end = 0.0
        self._is_scheduled = False
        self._later = self._loop.timer(0.0)
        self.calls = 0
        self.errors = 0
        self.is_starved = False

    # -- what connections use

    def schedule(self) -> None:
        """Run what is in the queue, and send what has gathered, before the loop polls again."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.run_callback(self._drain)

    def add_starved(self, connection: Connection) -> None:
        """Remember ``connection``, which stopped reading because all greenlets are taken."""
        self._starved.add(connection)

    @property
    def active_calls(self) -> int:
        """Calls that have begun and not ended."""
        return len(self._runners) - len(self._idle)

    @property
    def is_quiet(self) -> bool:
        """Whether no call runs or waits to run."""
        return not self.active_calls and not self._ready

    def give_up(self, error: str) -> None:
        """Answer every call that runs, or waits to, with ``error``; what it still returns will be dropped."""
        calls = [runner.call for runner in self._runners if runner.call is not None]
        calls += self._ready
        self._ready.clear()
        for connection, message in calls:
            if len(message) == 4:
                connection.out.append(self._pack((RESPONSE, message[1], error, None)))
        for connection, _ in calls:
            connection.seal()

    def running_method(self) -> int:
        """The number of the method that the present greenlet runs; 0 if it runs none. For signal handlers."""
        runner = gevent.getcurrent()
        call = runner.call if isinstance(runner, _Runner) else None
        method = self._registry.methods.get(call[1][-2]) if call is not None else None
        return method.number if method is not None else 0

    # -- the loop's side: runs in the hub, never blocks

    def _drain(self) -> None:
        self._is_scheduled = False
        ready, idle, cells = self._ready, self._idle, self._cells
        if ready:
            cells[_ACTIVE_CALLS] = self.active_calls + 1
            self._slice_end = monotonic() + SLICE_SECONDS
        while ready:
            if not idle and not self._add_runner():
                break
            idle.pop().switch()
            self._epoch += 1  # the queue is ours again: whoever has blocked must not go on with it
            if self._dirty:  # sent now, since the next runner may keep it waiting
                self._send_gathered()
            if ready and monotonic() > self._slice_end:
                self._go_on_later()
                break
        if self._dirty:
            self._send_gathered()
        cells[_ACTIVE_CALLS] = self.active_calls
        cells[_CALLS] = self.calls
        cells[_RUNNING_METHOD] = 0
        if self._starved and not self.is_starved:
            self._feed_starved()
        if self.calls >= self._call_limit:
            self._call_limit = sys.maxsize
            if self._on_call_limit is not None:
                self._on_call_limit()

    def _add_runner(self) -> bool:
        """One more idle runner; False when there are as many as there may be."""
        self.is_starved = len(self._runners) >= self._max_greenlets
        if not self.is_starved:
            runner = _Runner(self, self._hub)
            self._runners.add(runner)
            self._idle.append(runner)
        return not self.is_starved

    def _go_on_later(self) -> None:
        """Let the loop poll, then drain on: gevent reruns plain callbacks up to 50 times before it polls."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self._later.start(self._drain, update=False)

    def _send_gathered(self) -> None:
        dirty = self._dirty
        for connection in dirty:
            connection.flush()
        dirty.clear()

    def _feed_starved(self) -> None:
        starved, self._starved = self._starved, set()
        for connection in starved:
            connection.resume_starved()

    # -- the runners' side

    def _run(self, runner: _Runner) -> None:
        """A runner's whole life: take calls until the queue is empty or no longer ours, then wait to be needed."""
        ready, idle = self._ready, self._idle
        park = self._hub.switch
        while True:
            epoch = self._epoch
            before_clock = CLOCK_EVERY
            while ready:
                connection, message = runner.call = ready.popleft()
                if connection.is_choked:
                    connection.defer(message)
                    continue
                self._serve(connection, message)
                if self._epoch != epoch:  # it blocked meanwhile; the queue is another runner's now
                    break
                before_clock -= 1
                if not before_clock:
                    if monotonic() > self._slice_end:
                        break
                    before_clock = CLOCK_EVERY
            runner.call = None
            idle.append(runner)
            if self._epoch != epoch:
                self.is_starved = False
                self.schedule()
            park()

    def _serve(self, connection: Connection, message: list[Any]) -> None:
        """Run one call and leave its reply with its connection."""
        error = None
        began = monotonic() if self._call_log is not None else 0.0
        method = self._registry.methods.get(message[-2])
        try:
            if method is None:
                raise LookupError
            self._cells[_RUNNING_METHOD] = method.number
            result = Context().run(method.function, *message[-1])
            data = self._pack((RESPONSE, message[1], None, result)) if len(message) == 4 else None
        except BaseException as raised:  # whatever a method raises is its caller's affair, never the worker's
            error = self._error(connection, message, raised)
            data = self._pack((RESPONSE, message[1], error, None)) if len(message) == 4 else None
        self.calls += 1
        connection.pending -= 1
        if data is not None:
            self._leave(connection, data)
        elif connection.needs_look:
            self._dirty.append(connection)
        if self._call_log is not None:
            self._call_log(connection, str(message[-2]), monotonic() - began, error)

    def _leave(self, connection: Connection, data: bytes) -> None:
        out = connection.out
        if not out:
            self._dirty.append(connection)
        out.append(data)
        if len(data) > LARGE_REPLY_BYTES:
            connection.gathered += len(data)
            if connection.gathered > GATHER_BYTES:
                connection.flush()

    def _error(self, connection: Connection, message: list[Any], raised: BaseException) -> str:
        """The reply's error for what a method raised; the traceback goes to the log."""
        self.errors += 1
        self._cells[_ERRORS] = self.errors
        name, params = message[-2], message[-1]
        method = self._registry.methods.get(name)
        if method is None:
            return not_found_text(name)
        if isinstance(raised, TypeError) and is_misfit(method, params):
            return f"ArgumentError: {raised}"
        text = error_text(raised)
        logger.warning("Method %s failed for %s: %s", escaped(name), connection.peer, escaped(text), exc_info=raised)
        return text


class _Runner(greenlet):
    """A greenlet that runs calls, one after another; ``call`` is the one it is at."""

    def __init__(self, engine: Engine, hub: greenlet) -> None:
        super().__init__(engine._run, parent=hub)
        self.call: tuple[Connection, list[Any]] | None = None
        self._engine = engine

    def switch(self, *values: Any) -> Any:
        """Begin, or go on; what a method waits for in gevent is handed to it by ``values``."""
        return super().switch(*values) if self else super().switch(self)


def bound(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """``function`` interrupted at its next switch once ``seconds`` have passed, with a TimeoutError."""

    def limited(*params: Any) -> Any:
        with gevent.Timeout(seconds, TimeoutError(f"the call took longer than {seconds:g} seconds")):
            return function(*params)

    return limited
