"""Native threads: which hub of gevent one of them runs, and which of them are the client's own.

In a process that gevent has patched sockets and locks are gevent's, and those of one hub are of no use in another.
What a callback raises in a thread of the client's own can only be logged.
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
    """The hub of this native thread; None in a process that is not patched, where there is but one place for all."""
    if socket.socket.__module__ == "socket":
        return None
    gevent = sys.modules.get("gevent")  # nobody else imports it here
    return None if gevent is None else gevent.get_hub()


def ended_hubs(hubs: Iterable[Any], here: Any) -> list[Any]:
    """Those whose native thread is gone, so that their greenlets never run again; ``here`` is this thread's."""
    alive = sys._current_frames().keys() - {here.thread_ident}  # an ended thread's id may be this one's by now
    return [hub for hub in hubs if hub is not here and hub.thread_ident not in alive]


def start_thread(run: Callable[[], None], name: str) -> None:
    """Run it in a daemon thread. Raises RuntimeError when no thread can be had: then nothing was done."""
    threading.Thread(target=_run, args=(run,), name=name, daemon=True).start()


def _run(run: Callable[[], None]) -> None:
    me = threading.get_ident()
    _own.add(me)
    try:
        run()
    finally:
        _own.discard(me)


def is_own_thread() -> bool:
    """Whether this thread is one of ours."""
    return threading.get_ident() in _own


def log_error(text: str, error: BaseException) -> None:
    """Log it with its traceback; a handler that raises harms nobody."""
    with contextlib.suppress(Exception):
        _logger.error(text, exc_info=error)
