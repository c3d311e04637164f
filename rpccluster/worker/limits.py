"""Counts reached limits for ``status``, and logs them now and then. Runs in the worker."""

from __future__ import annotations

import logging
from typing import Any

from rpccluster.errors import LimitExceeded, ProtocolError
from rpccluster.ipc.scoreboard import LIMITS, Cell
from rpccluster.log import escaped, logger
from rpccluster.rate_limit import LogLimiter, and_more

__all__ = ["Limits"]


class Limits:
    """Counts in the cells of `rpccluster.ipc.scoreboard.LIMITS`; logs one line of each kind in a few seconds."""

    def __init__(self, cells: Any, limiter: LogLimiter) -> None:
        self._cells = cells
        self._limiter = limiter

    def note(self, limit: Cell, action: str, why: str, level: int = logging.INFO) -> None:
        """Count ``limit`` and log it. ``action`` says what follows: "Closing the connection of 127.0.0.1:4711"."""
        self.count(limit)
        is_due, held_back = self._limiter.should_log(limit.name)
        if is_due:
            logger.log(level, "%s: %s%s", action, escaped(why), and_more(held_back))

    def note_unreadable(self, action: str, peer: str, error: ProtocolError) -> None:
        """Count and log what ``peer`` has sent: it passed the limit that ``error`` names, or is no call."""
        name = error.limit if isinstance(error, LimitExceeded) else "not_messagepack_rpc"
        self.note(LIMITS[name], f"{action} of {peer}", str(error), logging.WARNING)

    def note_refused(self, peer: str, error: ProtocolError) -> None:
        """Count and log a call of ``peer`` that could not be read and was answered with an error."""
        self.note_unreadable("Refusing a call", peer, error)

    def count(self, limit: Cell) -> None:
        """Count ``limit``; the caller logs it."""
        self._cells[limit] += 1
