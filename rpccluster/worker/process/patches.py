"""Changes gevent, Python and libev for a worker, before it imports any code of the service. Runs in the worker, once.

The modules beside this one change the service's own view of signals, forks and log handlers.
"""

from __future__ import annotations

import logging
import threading
from importlib import metadata

import gevent
import gevent.hub
from gevent import monkey

from rpccluster.child.entry_points import chosen_by_group, entry_points
from rpccluster.child.prepare import IGNORED
from rpccluster.failure import error_text
from rpccluster.log import escaped, logger
from rpccluster.worker.process.asyncio_loops import set_aside_at_switches

__all__ = ["go_on_whatever_fails", "patch", "receive_what_is_ignored"]


def patch() -> None:
    """Let gevent patch Python.

    While gevent patches, it asks some thirty times for plugins, and each time reads the metadata of all installed
    packages: a third of a boot. So all answers come from one reading, mostly the master's. `logging` keeps its own
    lock, which is never held while this worker waits: with gevent's lock, native threads that log could wait for ever.
    """
    lock = logging._lock  # type: ignore[attr-defined]
    original = metadata.entry_points
    metadata.entry_points = chosen_by_group(entry_points())
    try:
        monkey.patch_all()
    finally:
        metadata.entry_points = original
        logging._lock = lock  # type: ignore[attr-defined]
    set_aside_at_switches()
    # a thread that a call starts is a daemon only if it says so, although greenlets pass for daemons
    threading._DummyThread._daemonic = False  # type: ignore[attr-defined]


def go_on_whatever_fails(hub: gevent.hub.Hub) -> None:
    """Log an error that ends a greenlet of the service, as one of a method, and do nothing more.

    gevent itself would print it, which fails on a full disk, and would leave the loop at a SystemExit.
    """
    handle_error = hub.handle_error

    def log_error(context: object, kind: type[BaseException], error: BaseException, trace: object) -> None:
        if context is None or kind is gevent.hub.HubDestroyed:  # the loop itself ends
            handle_error(context, kind, error, trace)
        elif not issubclass(kind, hub.NOT_ERROR):
            logger.error("A greenlet failed: %s", escaped(error_text(error)), exc_info=error)

    hub.handle_error = log_error


def receive_what_is_ignored() -> None:
    """Receive the ignored signals and do nothing, since programs of the service would inherit ignored signals.

    libev's handler receives them, which blocks other signals meanwhile. Python's handlers run on faulthandler's small
    stack, and six at once overflow it.
    """
    loop = gevent.get_hub().loop
    if loop.default:  # not in a child that a native thread has forked
        for signum in IGNORED:
            loop.signal(signum, ref=False).start(_do_nothing)


def _do_nothing() -> None:
    pass
