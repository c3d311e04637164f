"""The calls of one rule that this worker may let through now. Runs in the worker.

`rpccluster.worker.hot.compiled._turn` has a twin of it. Calls take from ``tokens``; `accrue` looks at the clock only
when none is left. `rpccluster.worker.access.rates` sets them twice a second.
"""

from __future__ import annotations

from time import monotonic_ns

__all__ = ["Bucket"]


class Bucket:
    """A count of calls that may pass, which grows by ``per_ns`` up to ``most``."""

    __slots__ = ("at_ns", "granted", "most", "per_ns", "refused", "tokens")

    def __init__(self) -> None:
        self.tokens = 0.0
        self.granted = 0.0  # tokens that it was ever given
        self.per_ns = 0.0
        self.most = 0.0
        self.at_ns = 0
        self.refused = 0

    @property
    def used(self) -> float:
        """The number of calls that have passed."""
        return self.granted - self.tokens

    def grant(self, tokens: float, per_ns: float, most: float, at_ns: int) -> None:
        """Let ``tokens`` calls pass, and ``per_ns`` more from ``at_ns`` on, up to ``most``."""
        self.granted += tokens - self.tokens
        self.tokens = tokens
        self.per_ns, self.most, self.at_ns = per_ns, most, at_ns

    def take(self) -> bool:
        """Let one call pass; returns False if none may."""
        if self.tokens < 1.0:
            self.accrue()
            if self.tokens < 1.0:
                self.refused += 1
                return False
        self.tokens -= 1.0
        return True

    def accrue(self) -> None:
        """Add what has grown since the last look."""
        now = monotonic_ns()
        if now > self.at_ns:
            grown = min((now - self.at_ns) * self.per_ns, self.most - self.tokens)
            self.at_ns = now
            self.tokens += grown
            self.granted += grown
