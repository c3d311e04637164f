"""What only the asyncio face of a queue has: cancellation, and the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from rpccluster import aio

from ..made_up_keeper import Keeper, keeping
from ..servers import Server


@pytest.fixture
def kept() -> Iterator[tuple[Keeper, Server]]:
    with keeping() as both:
        yield both


def test_a_cancelled_get_loses_nothing(kept: tuple[Keeper, Server]) -> None:
    """Whether or not the item was on its way: the next get of the program has it, in the same attempt."""

    async def main() -> list[tuple[int, int]]:
        async with aio.Queue(kept[1].address, "jobs", timeout=20) as queue:
            got = []
            puts = asyncio.gather(*(queue.put(number) for number in range(50)))
            while len(got) < 50:
                task = asyncio.ensure_future(queue.get())
                for _ in range(len(got) % 7):
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    item = await task
                except asyncio.CancelledError:
                    item = await queue.get()
                assert item is not None
                got.append((item.value, item.attempt))
            await puts
            return got

    assert sorted(asyncio.run(asyncio.wait_for(main(), 60))) == [(number, 1) for number in range(50)]


def test_a_cancelled_get_is_looked_after(kept: tuple[Keeper, Server]) -> None:
    """Without a next get, the keeper is told within a second or two that nobody waits any more."""
    keeper, server = kept

    async def main() -> None:
        async with aio.Queue(server.address, "jobs", timeout=20) as queue:
            task = asyncio.ensure_future(queue.get())
            while not keeper.parked:
                await asyncio.sleep(0.01)
            task.cancel()
            while keeper.parked:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_one_object_in_two_loops(kept: tuple[Keeper, Server]) -> None:
    """One after the other: it connects anew."""
    queue = aio.Queue(kept[1].address, "jobs")

    async def main() -> int:
        await queue.put("x")
        item = await queue.get()
        assert item is not None
        await item.ack()
        found: int = item.id
        return found

    assert [asyncio.run(main()), asyncio.run(main())] == [1, 2]
