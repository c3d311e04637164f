"""How often a verb is tried: a keeper that is away is asked again, with the same number, as long as the verb may take.

Owns one verb's deadlines and pauses. Pure: it is told the time.

    failed(ConnectFailed, NotSent, Lost) ──→ again after a pause, or give up: the keeper was away for too long
    failed(QueueDown, WorkerLost …) ───────→ the same
    failed(CallTimeout), a refused key ────→ give up
    failed(any other error of the keeper) ─→ give up: it has answered
"""

from __future__ import annotations

import math
from typing import NamedTuple

from rpccluster.errors import (
    AuthenticationFailed,
    CallTimeout,
    ConnectFailed,
    ConnectionLost,
    LeaseLost,
    Lost,
    NoSuchQueue,
    QueueDown,
    QueueFull,
    RemoteError,
    RPCClusterError,
    StaleToken,
)

__all__ = ["FAILURES", "Failed", "Tries", "is_answer"]

_KINDS: tuple[type[RPCClusterError], ...] = (LeaseLost, NoSuchQueue, QueueDown, QueueFull, StaleToken)
_NAMED = {kind.__name__: kind for kind in _KINDS}
_AGAIN = frozenset({"QueueDown", "WorkerLost", "WorkerRetired"})  # the keeper, or its store, comes back
_FIRST_PAUSE, _LAST_PAUSE = 0.01, 0.25  # seconds
_STOOD_SECONDS = 1.0  # a connection that has stood for so long shows that the keeper was there

#: What ends a try.
FAILURES = (ConnectionLost, ConnectFailed, CallTimeout, RemoteError)


def is_answer(error: BaseException) -> bool:
    """Return whether the keeper has answered with ``error``, so that nothing of the call is left there."""
    if isinstance(error, RemoteError):
        return error.type not in _AGAIN
    return isinstance(error, (LeaseLost, NoSuchQueue, QueueFull, StaleToken))


class Failed(NamedTuple):
    """How a try has ended, and when it began."""

    error: RPCClusterError
    began_at: float


class Tries:
    """The tries of one verb, which may wait for ``wait`` seconds at the keeper, which may be away for ``patience``."""

    __slots__ = ("_away_since", "_began_at", "_patience", "_pause", "_wait_ends_at")

    def __init__(self, wait: float, patience: float, now: float) -> None:
        self._wait_ends_at = now + wait
        self._patience = patience
        self._began_at = now
        self._away_since = now
        self._pause = _FIRST_PAUSE

    def wait_left(self, now: float) -> float | None:
        """Return the seconds that the keeper may still take its time for; None means any number of them."""
        return None if self._wait_ends_at == math.inf else max(0.0, self._wait_ends_at - now)

    def begin(self, now: float) -> float | None:
        """Begin a try. Returns its timeout in seconds; None means no limit."""
        self._began_at = now
        left = self._wait_ends_at + self._patience - now
        return None if left == math.inf else max(0.0, left)

    def failed(self, error: RPCClusterError, now: float) -> float:
        """Note how a try has ended. Returns the seconds to pause before the next one, or raises what ends the verb."""
        named: RPCClusterError = error
        if isinstance(error, RemoteError):
            named = _NAMED[error.type](error.message) if error.type in _NAMED else error
            if error.type not in _AGAIN:
                raise named from None
        elif isinstance(error, (CallTimeout, AuthenticationFailed)):
            raise error
        elif isinstance(error, Lost) and now - self._began_at > _STOOD_SECONDS:
            self._away_since = now
        if now >= min(self._away_since, self._wait_ends_at) + self._patience:
            raise named from None
        pause, self._pause = self._pause, min(2 * self._pause, _LAST_PAUSE)
        return pause
