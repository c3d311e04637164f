"""The services that the benchmarks run in rpccluster: the demo with a method that burns CPU, and one of each kind."""

from __future__ import annotations

import asyncio
import ctypes
import time

from rpccluster import rpc
from rpccluster.demo import Demo

__all__ = ["Bench", "Kinds"]


class Bench(Demo):
    """Runs in the workers."""

    def burn(self, microseconds: int) -> int:
        """Burn that much CPU time of this thread, whoever else wants the core; return it."""
        end = time.thread_time_ns() + microseconds * 1000
        while time.thread_time_ns() < end:
            pass
        return microseconds


class Kinds:
    """The same method as each kind that a worker runs; another service, since its worker has threads and a loop."""

    def plain(self, a: int, b: int) -> int:
        """Run in a greenlet."""
        return a + b

    @rpc(thread=True)
    def thread(self, a: int, b: int) -> int:
        """Run in a native thread."""
        return a + b

    async def coroutine(self, a: int, b: int) -> int:
        """Run on the asyncio loop."""
        return a + b

    @rpc(pool="bench")
    def pool(self, a: int, b: int) -> int:
        """Run in a task process."""
        return a + b

    @rpc(pool="bench")
    def compute_in_pool(self, microseconds: int) -> int:
        """Compute in Python in a task process."""
        return _compute(microseconds)

    @rpc(thread=True)
    def sleep_in_c(self, microseconds: int) -> int:
        """Block a native thread, without the GIL."""
        _LIBC.usleep(microseconds)
        return microseconds

    @rpc(thread=True)
    def compute(self, microseconds: int) -> int:
        """Compute in Python in a native thread."""
        return _compute(microseconds)

    async def sleep_on_loop(self, microseconds: int) -> int:
        """Wait on the asyncio loop."""
        await asyncio.sleep(microseconds / 1e6)
        return microseconds


_LIBC = ctypes.CDLL(None)


def _compute(microseconds: int) -> int:
    end = time.monotonic_ns() + microseconds * 1000
    while time.monotonic_ns() < end:
        pass
    return microseconds
