"""The kinds of calls that run beside the greenlets: in native threads, and on the asyncio loop. Runs in the worker.

A worker whose service has no such methods makes none of them: it has no thread, no loop, and no cost.
"""

from __future__ import annotations

import sys
from time import monotonic
from typing import Any, Callable

import gevent

from rpccluster.ipc.scoreboard import Cell, Row
from rpccluster.log import escaped, logger
from rpccluster.worker.current import GRACE_SECONDS
from rpccluster.worker.limits import Limits
from rpccluster.worker.live_options import LiveOptions
from rpccluster.worker.native.call import NativeKind
from rpccluster.worker.native.threads import Threads
from rpccluster.worker.service.registry import Entry, Runs

__all__ = ["NativeKinds"]

#: Seconds after which a thread that computes in Python lets others run. Each call waits so long for the interpreter
#: when such a thread runs, several times; Python's own 5 ms would make them ten times as slow.
SWITCH_SECONDS = 0.0005
LOOK_SECONDS = 0.01  # between two looks at the end of a worker
MOST_METHODS = 3  # named in the log


class NativeKinds:
    """The native threads and the asyncio loop of a worker; their `rpccluster.worker.native.call.Owner`."""

    def __init__(
        self, hub_loop: Any, options: LiveOptions, limits: Limits, row: Row, retire: Callable[[str], object]
    ) -> None:
        """They follow ``options``. ``retire`` asks for a successor, with the reason."""
        self._hub_loop = hub_loop
        self._options = options
        self._limits = limits
        self._row = row
        self._retire = retire
        self._kinds: dict[Runs, Any] = {}
        self._pools: dict[str, NativeKind] = {}
        self._go_on: Callable[[], object] = _do_nothing
        options.follow(self._follow_options)

    def entry(self, runs: Runs, method: Callable[..., Any], pool: str | None = None) -> Entry:
        """Return the entry of ``method``, whose calls run as ``runs`` says, or in the processes of ``pool``."""
        if pool is not None:
            return self._entry_in(pool, method)
        kind = self._kinds.get(runs)
        if kind is None:
            sys.setswitchinterval(SWITCH_SECONDS)
            kind = self._kinds[runs] = self._make(runs)
        return kind.entry(method)

    def _entry_in(self, pool: str, method: Callable[..., Any]) -> Entry:
        from rpccluster.worker.native.pool_calls import PoolCalls  # others need not have it in memory

        calls = self._pools.get(pool)
        if calls is None:
            calls = self._pools[pool] = PoolCalls(self._hub_loop, pool, self)
        return calls.entry(method)

    def serve(self, go_on: Callable[[], object]) -> None:
        """Call ``go_on`` from now on when calls that were held back may begin."""
        self._go_on = go_on

    def of(self, runs: Runs) -> Any:
        """Return the kind that runs such methods; None if there are none."""
        return self._kinds.get(runs)

    def left_behind(self) -> list[str]:
        """Return the names of what goes on although its call is over."""
        return [name for kind in self._kinds.values() for name in kind.left_behind()]

    def wait_for_cancelled(self) -> None:
        """Give coroutines whose calls were just given up their time for ``finally`` blocks, as methods have it."""
        coroutines = self._kinds.get(Runs.ON_LOOP)
        end = monotonic() + GRACE_SECONDS
        while coroutines is not None and coroutines.cancelled and monotonic() < end:
            gevent.sleep(LOOK_SECONDS)

    def close(self) -> None:
        """Let go of what another process cannot have; no call runs."""
        for kind in (*self._kinds.values(), *self._pools.values()):
            kind.close()

    def _make(self, runs: Runs) -> NativeKind:
        options = self._options
        if runs is Runs.IN_THREAD:
            return Threads(self._hub_loop, options.threads, options.thread_queue, self)
        from rpccluster.worker.native.coroutines import Coroutines  # asyncio takes memory, and time to import

        return Coroutines(self._hub_loop, options.max_greenlets, self)

    def _follow_options(self, options: LiveOptions, changed: frozenset[str]) -> None:
        if {"threads", "thread_queue"} & changed and Runs.IN_THREAD in self._kinds:
            self._kinds[Runs.IN_THREAD].set_limits(options.threads, options.thread_queue)
        if "max_greenlets" in changed and Runs.ON_LOOP in self._kinds:
            self._kinds[Runs.ON_LOOP].set_most(options.max_greenlets)

    # -- what the kinds tell

    def note_room(self) -> None:
        """Let calls begin that were held back."""
        self._go_on()

    def note_held_back(self, limit: Cell) -> None:
        """Count a call that was held back."""
        self._limits.count(limit)

    def note_lost(self, lost: int, threads: int) -> None:
        """Show the number of lost threads, and ask for a successor if it is half of all."""
        is_more = lost > self._row[Cell.THREADS_LOST]
        self._row[Cell.THREADS_LOST] = lost
        if not is_more:
            return
        methods = ", ".join(f"{escaped(name)} ({count})" for name, count in self._lost_methods())
        logger.warning("%d of %d threads go on with calls that are over: %s", lost, threads, methods)
        if 2 * lost >= threads:
            self._retire("half of its threads are lost")

    def _lost_methods(self) -> list[tuple[str, int]]:
        threads: Threads = self._kinds[Runs.IN_THREAD]
        return threads.lost_methods().most_common(MOST_METHODS)


def _do_nothing() -> None:
    pass
