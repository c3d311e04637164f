"""Producers and consumers of a queue in many processes, for some seconds: a JSON object of what they have done.

``python -m bench.loads.queue_load KIND ADDRESS WORK PROCESSES SECONDS``. WORK is ``put``, ``put_many``, ``aio`` (64
asyncio producers in all), ``get`` or ``get_many``. Each process connects, then all begin at one moment.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import struct
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from bench.loads.queue_clients import CLIENTS, MODULES, VALUE

__all__ = ["main"]

AT_ONCE = 64  # asyncio producers
MANY = 100  # items of a put_many
SOME = 32  # items of a get_many


def main(kind: str, address: str, work: str, processes: int, seconds: float) -> None:
    """Run the processes, and print how many items they have moved, in how many seconds."""
    for name in MODULES[kind]:  # once for all processes, which share them, as those of a program do that forks
        importlib.import_module(name)
    ready, told = os.pipe(), os.pipe()
    begin = os.pipe()
    children = [_fork(kind, address, work, AT_ONCE // processes, seconds, ready, begin, told) for _ in range(processes)]
    for end in (ready[1], told[1]):
        os.close(end)  # so that it is noticed when the processes have ended
    _read(ready[0], processes)
    os.write(begin[1], b"x" * processes)
    answers = _read(told[0], 16 * processes)
    for pid in children:
        os.waitpid(pid, 0)
    counts = list(struct.iter_unpack("=qd", answers))
    print(json.dumps({"count": sum(count for count, _ in counts), "seconds": max(took for _, took in counts)}))


def _read(descriptor: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = os.read(descriptor, size - len(data))
        if not more:
            raise SystemExit("a process of the load has ended")
        data += more
    return data


def _fork(kind: str, address: str, work: str, share: int, seconds: float, ready: Any, begin: Any, told: Any) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        if work == "aio":
            count, took = asyncio.run(_aio(address, share, seconds, lambda: _wait(ready[1], begin[0])))
        else:
            do = _work(CLIENTS[kind](address), work)
            do()  # so that it is connected
            _wait(ready[1], begin[0])
            count, took = _repeat(do, seconds)
        os.write(told[1], struct.pack("=qd", count, took))
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(0)


def _wait(ready: int, begin: int) -> None:
    os.write(ready, b"x")
    os.read(begin, 1)


def _repeat(do: Callable[[], int], seconds: float) -> tuple[int, float]:
    count, begun = 0, time.perf_counter()
    until = begun + seconds
    while time.perf_counter() < until:
        try:
            count += do()
        except Exception as error:
            if type(error).__name__ not in ("Empty", "TimedOutError"):
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
                break
    return count, time.perf_counter() - begun


def _work(client: Any, work: str) -> Callable[[], int]:
    def put() -> int:
        client.put(VALUE)
        return 1

    def put_many() -> int:
        client.put_many([VALUE] * MANY)
        return MANY

    return {"put": put, "put_many": put_many, "get": lambda: client.take(1), "get_many": lambda: client.take(SOME)}[
        work
    ]


async def _aio(address: str, share: int, seconds: float, wait: Callable[[], None]) -> tuple[int, float]:
    from rpccluster import aio

    count = 0
    async with aio.Queue(address, "bench") as queue:

        async def produce() -> None:
            nonlocal count
            while time.perf_counter() < until:
                await queue.put(VALUE)
                count += 1

        await queue.put(VALUE)
        wait()
        begun = time.perf_counter()
        until = begun + seconds
        await asyncio.gather(*(produce() for _ in range(share)))
        return count, time.perf_counter() - begun


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))
