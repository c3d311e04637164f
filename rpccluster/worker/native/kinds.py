"""The kinds of calls that run beside the greenlets: in native threads, and on the asyncio loop. Runs in the worker.

A worker whose service has no such methods makes none of them: it has no thread, no loop, and no cost.
"""

from __future__ import annotations

import sys
from typing import Any, Callable

from rpccluster.worker.live_options import LiveOptions
from rpccluster.worker.native.call import NativeKind
from rpccluster.worker.native.threads import Threads
from rpccluster.worker.service.registry import Entry, Runs

__all__ = ["NativeKinds"]

#: Seconds after which a thread that computes in Python lets others run. Each call waits so long for the interpreter
#: when such a thread runs, several times; Python's own 5 ms would make them ten times as slow.
SWITCH_SECONDS = 0.0005


class NativeKinds:
    """The native threads and the asyncio loop of a worker."""

    def __init__(self, hub_loop: Any, options: LiveOptions) -> None:
        """They follow ``options``. ``on_room`` and ``on_lost`` are to be set before the first call."""
        self._hub_loop = hub_loop
        self._options = options
        self._kinds: dict[Runs, Any] = {}
        self.on_room: Callable[[], None] = _do_nothing
        self.on_lost: Callable[[int, int], None] = _do_nothing
        options.follow(self._follow_options)

    def entry(self, runs: Runs, method: Callable[..., Any]) -> Entry:
        """Return the entry of ``method``, whose calls run as ``runs`` says."""
        kind = self._kinds.get(runs)
        if kind is None:
            sys.setswitchinterval(SWITCH_SECONDS)
            kind = self._kinds[runs] = self._make(runs)
        return Entry(kind.handing_over(method), kind.guarded)

    def _make(self, runs: Runs) -> NativeKind:
        options, on_room = self._options, lambda: self.on_room()
        if runs is Runs.IN_THREAD:
            on_lost = lambda lost, threads: self.on_lost(lost, threads)  # noqa: E731
            return Threads(self._hub_loop, options.threads, options.thread_queue, on_room, on_lost)
        from rpccluster.worker.native.coroutines import Coroutines  # asyncio takes memory, and time to import

        return Coroutines(self._hub_loop, options.max_greenlets, on_room)

    def _follow_options(self, options: LiveOptions, changed: frozenset[str]) -> None:
        if Runs.ON_LOOP in self._kinds:
            self._kinds[Runs.ON_LOOP].set_most(options.max_greenlets)

    def of(self, runs: Runs) -> Any:
        """Return the kind that runs such methods; None if there are none."""
        return self._kinds.get(runs)

    @property
    def threads(self) -> Threads | None:
        """The native threads; None if no method wants any."""
        threads: Threads | None = self.of(Runs.IN_THREAD)
        return threads


def _do_nothing(*_: Any) -> None:
    pass
