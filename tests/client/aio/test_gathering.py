"""Calls of tasks that were woken together leave together; at the connection's end each knows whether it has left."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from typing import Any

import msgpack
import pytest

from rpccluster.client.aio.connection import Connection
from rpccluster.errors import Lost, NotSent

from ..servers import reply
from .test_client import on_loop


@pytest.fixture(autouse=True)
def gather_seconds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine does meanwhile, calls are gathered in time, but where a test takes its time."""
    if "take_long" not in request.node.name:
        monkeypatch.setattr("rpccluster.client.aio.connection._GATHER_SECONDS", 60.0)


class Wire:
    """A transport that keeps what is written, each write by itself; it fails, if it is to, when it is written to."""

    def __init__(self) -> None:
        self.written: list[list[Any]] = []
        self.fails = self.is_shut = False

    def write(self, data: bytes) -> None:
        self.is_shut = self.is_shut or self.fails
        unpacker = msgpack.Unpacker()
        unpacker.feed(data)
        if not self.is_shut:
            self.written.append(list(unpacker))

    def is_closing(self) -> bool:
        return self.is_shut

    def close(self) -> None:
        self.is_shut = True

    abort = close

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> Any:
        return None


async def called(count: int, wire: Wire, deadline_at: float = math.inf, again: Any = None) -> tuple[Connection, list]:
    """A connection, and tasks that have made their first call and make a second one when its reply comes."""
    connection = Connection(1 << 20)
    connection.connection_made(wire)  # type: ignore[arg-type]
    connection._look_at = math.inf

    async def twice(number: int) -> Any:
        await connection.call("first", [number], deadline_at)
        if again is not None:
            again(number)
        return await connection.call("second", [number], deadline_at)

    tasks = [asyncio.ensure_future(twice(number)) for number in range(count)]
    await asyncio.sleep(0)
    return connection, tasks


def answer(connection: Connection, wire: Wire, method: str) -> None:
    """Answer all requests of ``method`` at once."""
    calls = [message for written in wire.written for message in written if message[2] == method]
    connection.data_received(b"".join(reply(msgid, params[0]) for _, msgid, _, params in calls))


def methods(wire: Wire) -> list[list[str]]:
    return [[message[-2] for message in written] for written in wire.written]


@on_loop
async def test_calls_of_tasks_that_wake_together_leave_together() -> None:
    """In few writes: the server begins with the first ones while the others are still made."""
    wire = Wire()
    connection, tasks = await called(10, wire)
    answer(connection, wire, "first")
    await asyncio.sleep(0)
    assert methods(wire)[1:] == [["first"]] * 10 + [["second"] * 8, ["second"] * 2]
    answer(connection, wire, "second")
    assert await asyncio.gather(*tasks) == list(range(10))


@on_loop
async def test_calls_of_tasks_that_take_long_leave_at_once() -> None:
    """None waits for what the next task does before its call."""
    wire = Wire()
    connection, tasks = await called(3, wire, again=lambda number: time.sleep(0.001))
    answer(connection, wire, "first")
    await asyncio.sleep(0)
    assert methods(wire)[4:] == [["second"]] * 3
    answer(connection, wire, "second")
    await asyncio.gather(*tasks)


@on_loop
async def test_a_reply_alone_gathers_nothing() -> None:
    """Its call would only wait."""
    wire = Wire()
    connection, (task,) = await called(1, wire)
    answer(connection, wire, "first")
    assert connection._gather_until == 0
    await asyncio.sleep(0)
    answer(connection, wire, "second")
    await task


@on_loop
async def test_what_has_not_left_at_the_end_did_not_run() -> None:
    """Also if the write of all of them fails at once; after it each call may have run."""
    for fails, ends, expected in ((True, False, NotSent), (False, True, NotSent), (False, False, Lost)):
        wire, made = Wire(), []
        lose = (lambda number, made=made: number == 2 and made[0].connection_lost(None)) if ends else None
        connection, tasks = await called(3, wire, again=lose)
        made.append(connection)
        answer(connection, wire, "first")
        wire.fails = fails
        await asyncio.sleep(0)
        connection.connection_lost(None)
        for task in tasks:
            with pytest.raises(expected):
                await task


@on_loop
async def test_what_a_task_sends_otherwise_comes_behind_what_is_gathered() -> None:
    """A notification, and a call that is too long to be gathered, leave at once, behind the calls before them."""
    wire, made = Wire(), []

    def note(number: int) -> None:
        if number == 2:
            with contextlib.suppress(StopIteration):
                made[0].notify("note", ["x" * 20_000], math.inf).send(None)

    connection, tasks = await called(4, wire, again=note)
    made.append(connection)
    answer(connection, wire, "first")
    await asyncio.sleep(0)
    assert methods(wire)[5:] == [["second", "second"], ["note"], ["second", "second"]]
    answer(connection, wire, "second")
    assert await asyncio.gather(*tasks) == list(range(4))


@on_loop
async def test_the_order_stays() -> None:
    """A notification, and the cancellation of a call, come behind the calls that are gathered."""
    wire = Wire()
    connection, tasks = await called(2, wire, asyncio.get_running_loop().time() + 20)
    question = next(message for written in wire.written for message in written if message[2] == "rpc.discover")
    connection.data_received(reply(question[1], {"rpc.call": {}, "rpc.cancel": {}}))
    answer(connection, wire, "first")
    asyncio.get_running_loop().call_soon(tasks[1].cancel)
    asyncio.get_running_loop().call_soon(asyncio.ensure_future, connection.notify("note", [], math.inf))
    for _ in range(5):
        await asyncio.sleep(0)
    assert [name for names in methods(wire)[-3:] for name in names] == ["rpc.call", "rpc.call", "rpc.cancel", "note"]
    connection.connection_lost(None)
    await asyncio.gather(*tasks, return_exceptions=True)
