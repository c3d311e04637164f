"""Passes rpccluster's own lines to log handlers of the service, which may wait, for a lock or for a log server.

So a greenlet of its own passes the lines, and the code that logs goes on at once. Runs in the worker.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Any, Callable

import gevent

from rpccluster.log import logger
from rpccluster.log.own_logger import OwnLogger

__all__ = ["LogRelay"]

MOST_WAITING = 200  # lines; further ones are dropped and counted


class LogRelay:
    """Takes records from any thread, and passes them on when the loop turns."""

    def __init__(self, hub: Any, log: OwnLogger = logger) -> None:
        self._hub = hub
        self._log = log
        self._waiting: deque[logging.LogRecord] = deque()
        self._lost = 0
        self._is_showing = False
        log.hand_on = self.take

    def take(self, record: logging.LogRecord) -> None:
        """Pass ``record`` on in its turn, or count it as lost."""
        if len(self._waiting) >= MOST_WAITING:
            self._lost += 1
            return
        self._waiting.append(record)
        if not self._is_showing:
            self._is_showing = True
            self._hub.loop.run_callback_threadsafe(gevent.spawn, self._show)

    def _show(self) -> None:
        show: Callable[[logging.LogRecord], object] = self._log.show_others
        try:
            while self._waiting:
                show(self._waiting.popleft())
        finally:
            self._is_showing = False
        lost, self._lost = self._lost, 0
        if lost:
            self._log.warning("%d lines did not reach the log handlers of the service, which are too slow", lost)

    def forget(self) -> None:
        """Drop waiting lines in a forked child; the parent passes them on."""
        self._waiting.clear()
        self._lost, self._is_showing = 0, False

    def finish(self, seconds: float) -> None:
        """Wait until all lines are passed on, at most ``seconds``."""
        with gevent.Timeout(seconds, False):
            while self._is_showing:
                gevent.sleep(0.01)
