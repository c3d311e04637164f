"""Native threads: the gevent hub of each, and the client's own threads.

In a process that gevent has patched, sockets and locks are gevent's, and those of one hub are of no use in another. An
error of a callback in a thread of the client's own can only be logged.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["ended_hubs", "is_own_thread", "log_error", "start_thread", "this_hub"]

_logger = logging.getLogger("rpccluster.client")

_own: set[int] = set()


def this_hub() -> Any:
    """Return the hub of this native thread; None in an unpatched process, which needs no distinction."""
    if socket.socket.__module__ == "socket":
        return None
    gevent = sys.modules.get("gevent")  # the client itself never imports it
    return None if gevent is None else gevent.get_hub()


def ended_hubs(hubs: Iterable[Any], here: Any) -> list[Any]:
    """Return the hubs whose native thread has ended, so that their greenlets never run; ``here`` is this thread's."""
    alive = sys._current_frames().keys() - {here.thread_ident}  # an ended thread's id may be this one's by now
    return [hub for hub in hubs if hub is not here and hub.thread_ident not in alive]


def start_thread(run: Callable[[], None], name: str) -> None:
    """Run ``run`` in a daemon thread. Raises RuntimeError, and does nothing, if no thread can be started."""
    threading.Thread(target=_run, args=(run,), name=name, daemon=True).start()


def _run(run: Callable[[], None]) -> None:
    me = threading.get_ident()
    _own.add(me)
    try:
        run()
    finally:
        _own.discard(me)


def is_own_thread() -> bool:
    """Return whether this thread is one of the client's own."""
    return threading.get_ident() in _own


def log_error(text: str, error: BaseException) -> None:
    """Log ``error`` with its traceback; a handler that raises does no harm."""
    with contextlib.suppress(Exception):
        _logger.error(text, exc_info=error)
