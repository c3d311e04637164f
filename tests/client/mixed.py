"""Many callers of one client, whose every result tells whose it is. Run in the test's process or in a child of it."""

from __future__ import annotations

import asyncio
import os
import random
import threading

from rpccluster.client import Client, aio
from rpccluster.errors import CallTimeout

__all__ = ["FULL_SCALE", "late_replies", "late_replies_on_asyncio", "mixed_calls", "mixed_calls_of_threads"]

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))


def mixed_calls(client: Client, caller: int, count: int) -> int:
    """Make ``count`` calls of mixed length and kind; return how many had a result that is not their own.

    The server's ``echo`` and ``linger`` return their last argument.
    """
    dice = random.Random(caller)
    wrong = 0
    for number in range(count):
        value = [caller, number, "x" * dice.choice([0, 1, 10, 100, 1000, 10_000])]
        kind = dice.random()
        if kind < 0.02:
            wrong += client.call("linger", 0.0005, value) != value
        elif kind < 0.06:
            wrong += client.call_async("echo", value).result(20) != value
        else:
            wrong += client.call("echo", value) != value
    return wrong


def mixed_calls_of_threads(client: Client, count: int) -> list[int]:
    """The same by 8 threads at once, ``count`` calls in all; for each of them how many results were not its own."""
    wrong: list[int] = []

    def work(caller: int) -> None:
        wrong.append(mixed_calls(client, caller, count // 8))

    threads = [threading.Thread(target=work, args=(caller,)) for caller in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


def late_replies(client: Client, count: int) -> int:
    """Calls that last a little more or less than they may, each followed by another; return how many were late."""
    dice = random.Random(count)
    late = 0
    for number in range(count):
        try:
            delay = 0.003 * dice.random()
            assert client.call("linger", delay, number, timeout=delay + 0.002 * (dice.random() - 0.6)) == number
        except CallTimeout:
            late += 1
        if dice.random() < 0.7:
            assert client.call("echo", [number]) == [number]
    return late


async def late_replies_on_asyncio(client: aio.Client, count: int) -> int:
    """The same by 20 tasks at once, ``count`` calls in all."""
    dice = random.Random(count)

    async def work() -> int:
        late = 0
        for number in range(count // 20):
            try:
                delay = 0.01 * dice.random()
                timeout = delay + 0.01 * (dice.random() - 0.6)
                assert await client.call("linger", delay, number, timeout=timeout) == number
            except CallTimeout:
                late += 1
            assert await client.call("echo", [number]) == [number]
        return late

    return sum(await asyncio.gather(*(work() for _ in range(20))))
