"""The service that the benchmarks run in rpccluster: the demo's methods, and one that costs a known CPU time."""

from __future__ import annotations

import time

from rpccluster.demo import Demo

__all__ = ["Bench"]


class Bench(Demo):
    """Runs in the workers."""

    def burn(self, microseconds: int) -> int:
        """Burn that much CPU time of this thread, whoever else wants the core; return it."""
        end = time.thread_time_ns() + microseconds * 1000
        while time.thread_time_ns() < end:
            pass
        return microseconds
