"""``python -m bench.loads.task_load POOL SIZE AT_ONCE SECONDS``: tasks that return their argument, over two processes.

Prints one JSON object. Each pool is used as its own documentation says, with no options that speed it up.
"""

from __future__ import annotations

import importlib
import json
import operator
import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ["POOLS", "main"]

_PROCESSES = 2
_WARM_UP = 200

#: Submits a task; and waits for its result; ends the pool.
_Pool = tuple[Callable[[Any], Any], Callable[[Any], Any], Callable[[], object]]


def _rpccluster() -> _Pool:
    import rpccluster

    pool = rpccluster.TaskPool(_PROCESSES, ["operator"])
    return lambda value: pool.submit("operator:pos", value), lambda future: future.result(), pool.close


def _executor() -> _Pool:
    from concurrent.futures import ProcessPoolExecutor

    pool = ProcessPoolExecutor(_PROCESSES)
    return lambda value: pool.submit(operator.pos, value), lambda future: future.result(), pool.shutdown


def _pool_of(module: str) -> Callable[[], _Pool]:
    def made() -> _Pool:
        pool = importlib.import_module(module).Pool(_PROCESSES)
        return lambda value: pool.apply_async(operator.pos, (value,)), lambda result: result.get(), pool.terminate

    return made


def _pebble() -> _Pool:
    pebble = importlib.import_module("pebble")
    pool = pebble.ProcessPool(_PROCESSES)
    return lambda value: pool.schedule(operator.pos, args=(value,)), lambda future: future.result(), pool.stop


POOLS: dict[str, Callable[[], _Pool]] = {
    "rpccluster": _rpccluster,
    "executor": _executor,
    "multiprocessing": _pool_of("multiprocessing"),
    "billiard": _pool_of("billiard"),
    "pebble": _pebble,
}


class _Value(bytes):
    """Bytes that ``operator.pos`` returns."""

    def __pos__(self) -> _Value:
        return self


def main(arguments: list[str]) -> None:
    """Run tasks until the time is over, so many at once, and print what that took."""
    name, size, at_once, seconds = arguments[0], int(arguments[1]), int(arguments[2]), float(arguments[3])
    submit, result, end = POOLS[name]()
    value: Any = _Value(size) if size else 1
    for task in [submit(value) for _ in range(min(_WARM_UP, 10 * at_once))]:
        result(task)
    count, times = 0, []
    begun, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - begun < seconds:
        at = time.perf_counter()
        for task in [submit(value) for _ in range(at_once)]:
            assert result(task) == value
        times.append(time.perf_counter() - at)
        count += at_once
    took, cpu = time.perf_counter() - begun, time.process_time() - cpu
    times.sort()
    figures = {"count": count, "seconds": took, "cpu_seconds": cpu}
    print(json.dumps({**figures, "p50": times[len(times) // 2], "p99": times[len(times) * 99 // 100]}), flush=True)
    end()


if __name__ == "__main__":
    sys.setswitchinterval(0.005)  # whatever an import has set
    importlib.import_module("bench.loads.task_load").main(sys.argv[1:])  # so that `_Value` can be pickled
