"""One call of a connection, where it stands, and what it brought. Sans-I/O; both faces use it.

Its states, and the events of `rpccluster.client.core.exchange.calls` that end it:

    NEW     ── begin() ───────────────────────────────────→ PENDING
    PENDING ── a reply with its msgid ────────────────────→ ANSWERED    result, or the remote error
            ── expire(), forget() ────────────────────────→ ABANDONED   its msgid stays taken until the late reply came
            ── cut(), its first byte was handed over ─────→ LOST        it may have run
            ── cut(), it was not ────────────────────────→ NOT_SENT    it certainly did not run
            ── cut_unread(), the server has not read it ──→ NOT_SENT    it certainly did not run
"""

from __future__ import annotations

import enum
import math
from typing import Any

__all__ = ["Call", "CallState"]


class CallState(enum.Enum):
    """The state of a call; the table in the module's docstring says what ends it."""

    NEW = "new"
    PENDING = "pending"
    ANSWERED = "answered"
    ABANDONED = "abandoned"
    LOST = "lost"
    NOT_SENT = "not sent"


_NEW = CallState.NEW
_PENDING = CallState.PENDING
_ANSWERED = CallState.ANSWERED


class Call:
    """One call. ``deadline_at`` is on the face's clock; the face wakes ``waiter`` at the end of the call."""

    state = _NEW
    msgid = -1
    starts_at = 0  # where in the stream, as the face counts
    value: Any = None
    error: Exception | None = None
    deadline_at = math.inf
    waiter: Any = None

    def __init__(self, deadline_at: float = math.inf, waiter: Any = None) -> None:
        self.deadline_at = deadline_at
        self.waiter = waiter

    @property
    def is_over(self) -> bool:
        """Whether the call has begun and ended."""
        return self.state is not _PENDING and self.state is not _NEW

    def renew(self, deadline_at: float) -> None:
        """Reset the call as if it had not begun, but keep the error of its last attempt."""
        self.deadline_at = deadline_at
        self.state = _NEW

    def result(self) -> Any:
        """Return the method's result. Raises the call's error, or RuntimeError before its end."""
        if self.state is _ANSWERED and self.error is None:
            return self.value
        try:
            raise self.error or RuntimeError("found the call not ended yet")
        finally:
            del self  # the traceback refers to this frame: no cycle may keep it
