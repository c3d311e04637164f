"""Puts that go together: many tasks that put at once cost the keeper one call, where it can be had.

A put that finds another one under way waits for the end of this turn of the loop, or of the puts before it, and goes
with all that wait by then. Each gets its own id. If they cannot be put together, since the queue has no room for all of
them, each goes alone, in their order. The loop's thread alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from copy import copy
from typing import Any, NamedTuple

from rpccluster.errors import QueueFull

__all__ = ["MOST_BYTES", "Puts"]

MOST_BYTES = 16_384  # of a value that goes with others
_MOST_VALUES = 64  # in one call
_MOST_TOGETHER = 65_536  # bytes, but for the last value


class _Put(NamedTuple):
    value: Any
    size: int
    future: asyncio.Future[Any]


class Puts:
    """The puts of one queue in one loop."""

    def __init__(
        self, one: Callable[[Any], Awaitable[Any]], many: Callable[[list[Any], int], Awaitable[list[Any]]]
    ) -> None:
        """``one`` puts a value, and waits for room; ``many`` puts several of a size, or none if it cannot at once."""
        self.loop = asyncio.get_running_loop()
        self._one = one
        self._many = many
        self._under_way = 0
        self._waiting: deque[_Put] = deque()
        self._task: asyncio.Task[None] | None = None
        self._alone: set[asyncio.Task[None]] = set()

    async def put(self, value: Any, size: int) -> Any:
        """Put a value of ``size`` bytes. Returns its id."""
        if not self._under_way:
            self._under_way += 1
            try:
                return await self._one(value)
            finally:
                self._under_way -= 1
        put = _Put(value, size, self.loop.create_future())
        self._waiting.append(put)
        if self._task is None or self._task.done():
            self._task = self.loop.create_task(self._run())
        return await put.future

    async def _run(self) -> None:
        self._under_way += 1
        try:
            while self._waiting:
                await asyncio.sleep(0)  # the other tasks of this turn come, too
                puts = self._taken()
                if puts:
                    await self._send(puts)
        finally:
            self._under_way -= 1

    def _taken(self) -> list[_Put]:
        """Take what goes together; what was cancelled is dropped."""
        puts: list[_Put] = []
        size = 0
        while self._waiting and len(puts) < _MOST_VALUES and size < _MOST_TOGETHER:
            put = self._waiting.popleft()
            if not put.future.done():
                puts.append(put)
                size += put.size
        return puts

    async def _send(self, puts: list[_Put]) -> None:
        try:
            ids = await self._many([put.value for put in puts], sum(put.size for put in puts))
        except (QueueFull, TypeError, ValueError):  # one of them may be the cause, and none was put
            for put in puts:
                self._send_alone(put)
        except Exception as error:
            for put in puts:
                if not put.future.done():
                    put.future.set_exception(copy(error))
        else:
            for put, id in zip(puts, ids):
                if not put.future.done():
                    put.future.set_result(id)

    def _send_alone(self, put: _Put) -> None:
        if put.future.done():
            return
        task = self.loop.create_task(self._settle(put))
        self._alone.add(task)
        task.add_done_callback(self._alone.discard)
        put.future.add_done_callback(lambda _: task.cancel())  # the one who waits may have given up

    async def _settle(self, put: _Put) -> None:
        try:
            id = await self._one(put.value)
        except Exception as error:
            if not put.future.done():
                put.future.set_exception(error)
        else:
            if not put.future.done():
                put.future.set_result(id)
