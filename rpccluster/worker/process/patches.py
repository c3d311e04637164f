"""What gevent, Python and libev are made to do otherwise in a worker, before any code of the service is imported.

Runs in the worker, once. What changes the service's own view of signals, forks and log handlers is beside this file.
"""

from __future__ import annotations

import logging
import threading
from importlib import metadata
from typing import Any

import gevent
import gevent.hub
from gevent import monkey

from rpccluster.child.prepare import IGNORED
from rpccluster.failure import error_text
from rpccluster.log import escaped, logger
from rpccluster.worker.process.asyncio_loops import set_aside_at_switches

__all__ = ["go_on_whatever_fails", "patch", "receive_what_is_ignored"]


def patch() -> None:
    """Let gevent patch Python.

    While it patches, it asks some thirty times for plugins, and each time reads about all that is installed: a third of
    a boot. So it is told of one look. `logging` keeps its own lock: gevent's, where native threads log, too, may be
    waited for for ever, and this one is never held across a wait of ours.
    """
    lock = logging._lock  # type: ignore[attr-defined]
    original = metadata.entry_points
    everything: Any = original()
    metadata.entry_points = lambda **wanted: everything.select(**wanted) if wanted else everything
    try:
        monkey.patch_all()
    finally:
        metadata.entry_points = original
        logging._lock = lock  # type: ignore[attr-defined]
    set_aside_at_switches()
    # a thread that a call begins is a daemon if it says so, not because greenlets pass for daemons
    threading._DummyThread._daemonic = False  # type: ignore[attr-defined]


def go_on_whatever_fails(hub: gevent.hub.Hub) -> None:
    """Log the error that a greenlet of the service's ends with, like one of a method, and do nothing more.

    gevent would print it, which a full disk makes fail in turn, and leave the loop for a SystemExit.
    """
    handle_error = hub.handle_error

    def log_error(context: object, kind: type[BaseException], error: BaseException, trace: object) -> None:
        if context is None or kind is gevent.hub.HubDestroyed:  # the loop itself is at its end
            handle_error(context, kind, error, trace)
        elif not issubclass(kind, hub.NOT_ERROR):
            logger.error("A greenlet failed: %s", escaped(error_text(error)), exc_info=error)

    hub.handle_error = log_error


def receive_what_is_ignored() -> None:
    """Take the signals and do nothing: what is ignored would be so in each program that the service runs, too.

    By libev's handler, which blocks the others meanwhile. Those of Python are run on faulthandler's small stack, six
    at once overflow it.
    """
    loop = gevent.get_hub().loop
    if loop.default:  # not in a child that a native thread has forked
        for signum in IGNORED:
            loop.signal(signum, ref=False).start(_do_nothing)


def _do_nothing() -> None:
    pass
