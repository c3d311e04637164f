"""Waits at a worker's end for the work that calls have left behind, as Python does at its end. Runs in the worker.

That work is: greenlets that a call has spawned, directly or not, threads that are no daemons, jobs of native threads,
executors, tasks of the asyncio loop, native threads whose calls are over. The service itself ends what it began
elsewhere, such as a loop in ``worker_started``.
"""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import Any, Callable

import gevent
from gevent.thread import get_ident
from gevent.threadpool import ThreadPool

from rpccluster.log import escaped, logger
from rpccluster.worker.current import is_begun_by_a_call

__all__ = ["LeftBehind"]

LOOK_SECONDS = 0.02
LAST_SECONDS = 0.5  # that idle executors may take to end
MOST_NAMES = 10  # in the log


class LeftBehind:
    """The work that calls leave behind; made before the first call."""

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self._greenlets: weakref.WeakSet[gevent.Greenlet] = weakref.WeakSet()
        self._early_pools: list[ThreadPool] = []
        self._jobs_before = 0
        self._others: list[Callable[[], Iterable[str]]] = []
        gevent.Greenlet.add_spawn_callback(self._note)

    def _note(self, greenlet: gevent.Greenlet) -> None:
        if is_begun_by_a_call(greenlet):
            self._greenlets.add(greenlet)

    def add(self, names: Callable[[], Iterable[str]]) -> None:
        """Wait for more work, too, as long as ``names`` returns any names of it."""
        self._others.append(names)

    def begin(self) -> None:
        """Note the present jobs of native threads, which no call has begun.

        Call this before the first call, and before `gc.freeze`, since frozen objects cannot be found.
        """
        self._early_pools = list(_pools())
        self._jobs_before = sum(map(len, self._early_pools))

    def wait(self, until: float) -> None:
        """Wait for all work but executors, for half of the time to ``until``; the rest is for ``worker_stopping``."""
        now = monotonic()
        self._wait(now + max(0.0, until - now) / 2, self._all_but_executors)

    def finish(self, until: float) -> None:
        """Let executors take no more work, wait for all work, and log what is cut off at ``until``."""
        gevent.spawn(_end_executors)
        cut = self._wait(max(until, monotonic() + LAST_SECONDS), self._all)
        if cut:
            shown = ", ".join(escaped(name) for name in cut[:MOST_NAMES])
            more = f" and {len(cut) - MOST_NAMES} more" if len(cut) > MOST_NAMES else ""
            logger.warning("Cut off at the end of graceful_timeout what calls had left behind: %s%s", shown, more)

    def _wait(self, until: float, look: Any) -> list[str]:
        """Wait until ``look`` finds nothing, or until ``until``. Returns the names that it still finds."""
        pools = {*self._early_pools, *_pools()}
        while True:
            found = [*look(), *(name for names in self._others for name in names())]
            jobs = sum(map(len, pools)) - self._jobs_before
            if jobs > 0:
                found.append(f"{jobs} jobs of native threads")
            if not found or monotonic() >= until:
                return found
            gevent.sleep(LOOK_SECONDS)

    def _all_but_executors(self) -> Iterator[str]:
        executors = _threads_of_executors()
        threads = {thread.ident: thread for thread in threading.enumerate()}
        for greenlet in list(self._greenlets):
            thread = threads.get(get_ident(greenlet))
            if not greenlet.ready() and (thread is None or not (thread.daemon or thread in executors)):
                yield f"greenlet {_name_of(greenlet)}" if thread is None else f"thread {thread.name}"

    def _all(self) -> Iterator[str]:
        yield from self._all_but_executors()
        yield from (f"executor thread {thread.name}" for thread in _threads_of_executors() if thread.is_alive())


def _threads_of_executors() -> set[threading.Thread]:
    """Return the threads of executors, which wait for work until they are told to end."""
    found: set[threading.Thread] = set()
    for module, name in (("thread", "_threads_queues"), ("process", "_threads_wakeups")):
        found.update(getattr(sys.modules.get(f"concurrent.futures.{module}"), name, ()))
    return found


def _end_executors() -> None:
    """Run the functions that Python runs first at its end."""
    for end in reversed(getattr(threading, "_threading_atexits", [])):
        try:
            end()
        except Exception:
            logger.exception("A function that the service registered for the end of threads failed")


def _pools() -> Iterator[ThreadPool]:
    return (thing for thing in gc.get_objects() if issubclass(type(thing), ThreadPool))


def _name_of(greenlet: gevent.Greenlet) -> str:
    """Return the function that ``greenlet`` runs; its own name could be anything."""
    frame, name = greenlet.gr_frame, "that has not begun"
    while frame is not None:
        frame, name = frame.f_back, frame.f_code.co_name
    return name
