"""Tells of a worker of which no thread can run: a timer has passed that its threads set anew. Runs in the master.

The worker itself tells of a loop that is held up (`rpccluster.worker.native.stall_watch`), as long as anything of it
runs. Nothing does while C code holds the GIL, or while the process is stopped.
"""

from __future__ import annotations

from rpccluster.log import escaped, logger
from rpccluster.master.children.child import Child
from rpccluster.rate_limit import LogLimiter, and_more
from rpccluster.system.clock import Timer

__all__ = ["Stalls"]


class Stalls:
    """The ``timer`` of one worker, which is readable when the worker stands still."""

    def __init__(self, timer: Timer, noun: str, limiter: LogLimiter) -> None:
        """``noun`` is the word for such a process; ``limiter`` is that of all such processes."""
        self.timer = timer
        self._noun = noun.capitalize()
        self._limiter = limiter

    def read(self, child: Child) -> None:
        """Log that ``child``, whose timer has passed, stands still, unless it is about to end."""
        if not self.timer.drain() or not child.is_holding:  # the first: it has ended, and is heard out
            return
        where = child.where_it_hangs()
        is_due, held_back = self._limiter.should_log(where)
        if is_due:
            logger.warning(
                "%s (pid: %d, slot: %d) stands still in %s: C code holds the GIL, or the process is stopped%s",
                self._noun,
                child.pid,
                child.slot,
                escaped(where),
                and_more(held_back),
            )
