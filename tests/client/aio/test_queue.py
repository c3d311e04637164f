"""What only the asyncio face of a queue has: cancellation, and the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from rpccluster import aio
from rpccluster.errors import ConnectFailed

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


def test_puts_of_many_tasks_go_together(kept: tuple[Keeper, Server]) -> None:
    """In a few calls, each put with its own id; those with options go alone."""
    keeper, server = kept

    async def main() -> list[int]:
        async with aio.Queue(server.address, "jobs") as queue:
            return await asyncio.gather(
                *(queue.put(number) for number in range(200)), queue.put(200, priority=1), queue.put("x" * 20_000)
            )

    ids = asyncio.run(main())
    assert {item[0]: item[2] for item in keeper.ready} == dict(zip(ids, [*range(201), "x" * 20_000]))
    values = [item[2] for item in keeper.ready if type(item[2]) is int and item[2] < 200]
    assert values == list(range(200)), "in the order in which they were begun"
    calls = [method for method, _ in keeper.seen]
    assert calls.count("queue.put") == 3
    assert calls.count("queue.put_many") == 4


@pytest.mark.parametrize("why", ["full", "deep", "limit"])
def test_puts_that_cannot_go_together_go_alone(kept: tuple[Keeper, Server], why: str) -> None:
    """One that is refused harms no other; one that has been given up is not put."""
    keeper, server = kept
    keeper.many_are_too_many = why == "full"
    keeper.limit = 1500 if why == "limit" else keeper.limit
    deep: list[object] = []
    for _ in range(200):
        deep = [deep]

    async def main() -> list[object]:
        async with aio.Queue(server.address, "jobs") as queue:
            puts = [asyncio.ensure_future(queue.put(f"{number:099}")) for number in range(50)]
            if why == "deep":
                puts.insert(25, asyncio.ensure_future(queue.put(deep)))
            puts.append(given_up := asyncio.ensure_future(queue.put("given up")))
            await asyncio.sleep(0)
            given_up.cancel()
            return await asyncio.gather(*puts, return_exceptions=True)

    outcomes = asyncio.run(main())
    assert isinstance(outcomes.pop(), asyncio.CancelledError)
    assert [type(outcome) for outcome in outcomes if type(outcome) is not int] == [ValueError] * (why == "deep")
    assert sorted(item[2] for item in keeper.ready) == [f"{number:099}" for number in range(50)]


def test_a_lost_reply_to_many_puts(kept: tuple[Keeper, Server]) -> None:
    """They are there once."""
    keeper, server = kept
    keeper.loses = 5

    async def main() -> list[int]:
        async with aio.Queue(server.address, "jobs", timeout=20) as queue:
            return await asyncio.gather(*(queue.put(number) for number in range(100)))

    ids = asyncio.run(main())
    assert sorted(ids) == sorted(item[0] for item in keeper.ready)
    assert sorted(item[2] for item in keeper.ready) == list(range(100))


def test_puts_together_end_with_their_queue(kept: tuple[Keeper, Server]) -> None:
    """When the keeper is away for too long, all of them tell so."""
    kept[1].close()

    async def main() -> list[object]:
        queue = aio.Queue(kept[1].address, "jobs", timeout=0.1)
        return await asyncio.gather(*(queue.put(number) for number in range(5)), return_exceptions=True)

    assert [type(outcome) for outcome in asyncio.run(main())] == [ConnectFailed] * 5
