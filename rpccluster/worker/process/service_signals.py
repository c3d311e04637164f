"""The signal handlers of a service. Runs in the worker, where it replaces `signal.signal` and the like.

Python runs a handler wherever the main thread is: in the loop, between two steps of the engine, in another call. A
handler that raises there would end the worker, or that call; one that waits would stop it half-way. So

- a handler that a call has set, or armed a timer for, runs at once if its signal interrupts the service's code in that
  call. Otherwise it runs a moment later in a greenlet of its own, and its exception is thrown into the call;
- a handler without a running call runs in a greenlet of its own, and its exception is logged. If no call has set it,
  and its signal interrupts one, it runs there, as in any Python program;
- TERM, INT, QUIT and the master's question belong to the worker. A handler for them is not set, and the log says so.

In a child that the service forks, Python's own rules hold.
"""

from __future__ import annotations

import signal
from typing import Any, Callable, NamedTuple

import gevent
from greenlet import getcurrent

from rpccluster import system
from rpccluster.failure import error_text
from rpccluster.log import escaped, logger
from rpccluster.worker.current import Runner
from rpccluster.worker.process.forks import Forks

__all__ = ["ServiceSignals"]

_MEANS = {
    signal.SIGTERM: "retires the worker. Put clean-up into the hook worker_stopping or into atexit",
    signal.SIGINT: "ends the worker at once",
    signal.SIGQUIT: "ends the worker at once",
    system.TELL_SIGNAL: "asks the worker where it hangs",
}
_TIMERS = {
    signal.ITIMER_REAL: signal.SIGALRM,
    signal.ITIMER_VIRTUAL: signal.SIGVTALRM,
    signal.ITIMER_PROF: signal.SIGPROF,
}
_RUN_METHODS = tuple(f"rpccluster.worker.hot.{name}" for name in ("runners", "compiled.engine", "slow_path"))
_AROUND_METHODS = (
    "rpccluster.worker.access.access",
    "rpccluster.worker.hot.control.bounded",
    "rpccluster.worker.service.access_log",
    "rpccluster.worker.service.later",
    "rpccluster.worker.service.leader_only",
    "rpccluster.worker.service.time_limit",
)
_OURS = "rpccluster.worker."


class _Owner(NamedTuple):
    """The call that has set a handler."""

    runner: Runner
    message: Any

    def is_under_way(self) -> bool:
        """Return whether its runner still runs it."""
        return self.runner.call is self.message


def _present_call() -> _Owner | None:
    runner = getcurrent()
    return _Owner(runner, runner.call) if isinstance(runner, Runner) else None


class ServiceSignals:
    """Keeps the service's handlers; made once in a worker, before the service is imported."""

    def __init__(self, loop: Any, forks: Forks) -> None:
        self._loop = loop
        self._forks = forks
        self._handlers: dict[int, Any] = {}  # the service's handlers, by signal
        self._owners: dict[int, _Owner | None] = {}
        self._told: set[int] = set()
        self._set, self._get = signal.signal, signal.getsignal  # gevent's versions, which handle SIGCHLD
        self._alarm, self._set_timer = signal.alarm, signal.setitimer

    def take_over(self) -> None:
        """Replace the functions of `signal` from now on."""
        signal.signal, signal.getsignal = self._signal, self._getsignal  # type: ignore[assignment]
        signal.alarm, signal.setitimer = self._arm_alarm, self._arm_timer

    def is_set_behind_us(self, signum: int) -> bool:
        """Return whether the service has set a real handler for a signal of the worker's, in spite of `take_over`."""
        return self._get(signum) is not signal.SIG_DFL

    # -- what the service calls

    def _signal(self, signalnum: Any, handler: Any, /) -> Any:
        if self._forks.is_child or signalnum == signal.SIGCHLD:
            return self._set(signalnum, handler)
        before = self._getsignal(signalnum)
        if signalnum in _MEANS:
            self._tell(signalnum, handler)
        else:
            self._set(signalnum, self._deliver if callable(handler) else handler)
        self._handlers[signalnum] = handler
        self._owners[signalnum] = _present_call()
        return before

    def _getsignal(self, signalnum: Any, /) -> Any:
        """Return the handler that the service has set, in force or not."""
        if self._forks.is_child:
            return self._get(signalnum)
        default = signal.SIG_DFL if signalnum in _MEANS else self._get(signalnum)
        return self._handlers.get(signalnum, default)

    def _arm_alarm(self, seconds: int, /) -> int:
        self._owners[signal.SIGALRM] = _present_call()
        return self._alarm(seconds)

    def _arm_timer(self, which: int, seconds: float, interval: float = 0.0, /) -> tuple[float, float]:
        if which in _TIMERS:
            self._owners[_TIMERS[which]] = _present_call()
        return self._set_timer(which, seconds, interval)

    def _tell(self, signum: int, handler: Any) -> None:
        if signum not in self._told and handler is not signal.SIG_DFL:
            self._told.add(signum)
            name = signal.Signals(signum).name
            logger.warning("Did not set the service's handler for %s: %s %s", name, name, _MEANS[signum])  # type: ignore[index]

    # -- what Python calls

    def _deliver(self, signum: int, frame: Any) -> None:
        """Run the service's handler, here or in a greenlet; called anywhere in the main thread."""
        handler, owner = self._handlers[signum], self._owners.get(signum)
        if self._forks.is_child:
            handler(signum, frame)
            return
        is_its_own = owner is None or (owner.runner is getcurrent() and owner.is_under_way())
        if is_its_own and isinstance(getcurrent(), Runner) and _is_in_method(frame):
            handler(signum, frame)
        else:
            self._loop.run_callback(gevent.spawn, self._run, handler, signum, frame, owner)

    def _run(self, handler: Callable[[int, Any], object], signum: int, frame: Any, owner: _Owner | None) -> None:
        try:
            handler(signum, frame)
        except BaseException as error:
            self._loop.run_callback(self._end, owner, error)

    def _end(self, owner: _Owner | None, error: BaseException) -> None:
        """Throw ``error`` into the call of ``owner``, or log it. Runs in the hub."""
        if owner is not None and owner.is_under_way():
            owner.runner.throw(error)
        else:
            logger.error("A signal handler of the service failed: %s", escaped(error_text(error)), exc_info=error)


def _is_in_method(frame: Any) -> bool:
    """Return whether ``frame`` is in the method's code, or in code that it calls, and not in the worker's own."""
    if _module_of(frame).startswith(_OURS):
        return False
    while frame.f_back is not None:
        module = _module_of(frame.f_back)
        if module in _RUN_METHODS:
            return not _module_of(frame).startswith(_OURS) or _module_of(frame) in _AROUND_METHODS
        frame = frame.f_back
    return False


def _module_of(frame: Any) -> str:
    return str(frame.f_globals.get("__name__"))
