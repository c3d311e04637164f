"""The threads of our own: what a callback raises in them can only be logged."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

__all__ = ["is_own_thread", "log_error", "start_thread"]

_logger = logging.getLogger("rpccluster.client")

_own: set[int] = set()


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
