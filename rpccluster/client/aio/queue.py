"""The client of a keeper's queue, on asyncio: the verbs of `rpccluster.client.core.queues`, performed.

The counterpart of `rpccluster.client.sync.queue`, with coroutines. One object serves all tasks of a loop. See
docs/queue.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import traceback
import weakref
from collections.abc import Awaitable, Iterable, Sequence
from time import monotonic
from typing import Any, TypeVar

from rpccluster.address import Address
from rpccluster.client.aio.client import Client
from rpccluster.client.aio.queue_puts import MOST_BYTES, Puts
from rpccluster.client.core.exchange.outgoing import BOUNDS
from rpccluster.client.core.queues.steps import Call, Step, Steps
from rpccluster.client.core.queues.taken import Dead, Peeked, Taken
from rpccluster.client.core.queues.values import PLAIN, PutOptions, size_of
from rpccluster.client.core.queues.verbs import Verbs
from rpccluster.client.threads.forks import MARK, let_go_after, notice_fork
from rpccluster.errors import LeaseLost, RPCClusterError

__all__ = ["Item", "Queue"]

T = TypeVar("T")

_LOOK_SECONDS = 1.0  # so often the sessions are looked after that hold items


class Item:
    """One item, which this process holds until its lease ends. `Queue.get` makes it.

    In an ``async with`` block it is acked at the end, or given back if the block raises, unless the block has done so.
    """

    def __init__(self, queue: Queue, taken: Taken) -> None:
        self._queue = queue
        self._taken = taken

    @property
    def value(self) -> Any:
        """What was put."""
        return self._taken.value

    @property
    def id(self) -> Any:
        """The id that `Queue.put` has returned."""
        return self._taken.id

    @property
    def attempt(self) -> int:
        """How many times it has been given to a consumer, this time included."""
        return self._taken.attempt

    def __repr__(self) -> str:
        return f"<item {self.id} of {self._queue.name}, attempt {self.attempt}>"

    async def ack(self, token: int | None = None) -> None:
        """Say that the item is done. Raises `LeaseLost` if it is not held any more, `StaleToken` for an old token."""
        await self._queue.ack([self], token)

    async def nack(self, delay: float | None = None, error: str | None = None, *, dead: bool = False) -> None:
        """Give the item back, for another attempt after ``delay`` seconds. Raises `LeaseLost`.

        ``error`` is kept with it, and shown by `Queue.dead` if this was its last attempt. With ``dead`` it was,
        whatever attempts are left.
        """
        await self._queue._perform(self._queue._verbs.nack(self._taken, delay, error, dead))

    async def touch(self) -> None:
        """Let the lease begin anew. Raises `LeaseLost`."""
        await self._queue._perform(self._queue._verbs.touch(self._taken))

    async def __aenter__(self) -> Item:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if not self._queue._verbs.holding.has(self._taken):
            return
        if error is None:
            await self.ack()
            return
        try:
            await self.nack(error=traceback.format_exception_only(kind, error)[-1].strip())
        except LeaseLost:  # somebody else has it by now, and the block's own error says more
            pass


class Queue:
    """The queue ``name`` of the keeper at ``address``; it connects at its first call.

    ``timeout`` is how long, in seconds, a keeper may be away, or silent beyond what a call may wait for. Within it
    every call is repeated, with the same number, so that no item is put twice and none is lost. ``authkey`` is that of
    `rpccluster.Client`, as are the other parameters. Besides what each method names, all raise `NoSuchQueue`,
    `ConnectFailed`, `Lost`, `NotSent`, `CallTimeout`, `QueueDown`, and `RemoteError`.
    """

    def __init__(
        self,
        address: str | Address,
        name: str,
        *,
        authkey: Any = None,
        timeout: float = 10,
        connect_timeout: float | None = 5,
        max_message_size: int = BOUNDS.max_size,
        max_depth: int = BOUNDS.max_depth,
    ) -> None:
        options: dict[str, Any] = {"max_message_size": max_message_size, "max_depth": max_depth}
        if authkey is not None:
            options["authkey"] = authkey
        self.name = name
        self._client = Client(address, timeout=timeout, connect_timeout=connect_timeout, **options)
        self._patience = timeout
        self._begin()
        let_go_after(self)

    def _begin(self) -> None:
        self._own_verbs = Verbs(self.name, self._patience, monotonic, lambda: self._client._connection)
        self._watch: asyncio.Task[None] | None = None
        self._puts: Puts | None = None

    async def __aenter__(self) -> Queue:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<aio.{type(self).__name__} {self.name} at {self._client.address}>"

    async def close(self) -> None:
        """Close the connection. What this process holds goes to other consumers."""
        self._verbs.is_closed = True
        if self._watch is not None:
            self._watch.cancel()
        await self._client.close()

    async def put(
        self,
        value: Any,
        *,
        delay: float | None = None,
        priority: int = 0,
        expires: float | None = None,
        dedup_id: str | None = None,
        group: str | None = None,
        timeout: float | None = None,
        token: int | None = None,
    ) -> Any:
        """Put a value, and return the item's id once the keeper has it safe.

        It is given to a consumer after ``delay`` seconds, and dropped if nobody has got it after ``expires``. Priority
        9 goes first. Of the items of a ``group`` one is out at a time. If an item with this ``dedup_id`` was put
        before, its id is returned and nothing is put. ``token`` is that of a leader. While the queue is full this waits
        up to ``timeout`` seconds, None for ever, and then raises `QueueFull`. Raises TypeError for a value that is no
        MessagePack value, ValueError for one that is too large or nested too deep, and sends nothing then;
        `StaleToken`.
        """
        options = PutOptions.of(delay, priority, expires, dedup_id, group, token)
        size = size_of(value)
        if options is PLAIN and timeout is None and size <= MOST_BYTES:
            return await self._present_puts().put(value, size)
        return await self._perform(self._verbs.put(value, options, timeout))

    def _present_puts(self) -> Puts:
        """Return the puts of this process in this loop."""
        verbs, puts = self._verbs, self._puts
        if puts is None or puts.loop is not asyncio.get_running_loop():
            self._puts = puts = Puts(
                lambda value: self._perform(verbs.put(value, PLAIN, None)),
                lambda values, size: self._perform(verbs.put_together(values, size)),
            )
        return puts

    async def put_many(
        self,
        values: Iterable[Any],
        *,
        delay: float | None = None,
        priority: int = 0,
        expires: float | None = None,
        dedup_id: str | None = None,
        group: str | None = None,
        timeout: float | None = None,
        token: int | None = None,
    ) -> list[Any]:
        """Put values in one call, all or none, in their order. Returns their ids.

        The ``dedup_id`` is that of all together. Otherwise as `put`.
        """
        options = PutOptions.of(delay, priority, expires, dedup_id, group, token)
        return await self._perform(self._verbs.put_many(values, options, timeout))

    async def get(self, timeout: float | None = None, *, ack: Sequence[Item] = ()) -> Item | None:
        """Take the next item; None if there is none within ``timeout`` seconds. None waits for ever.

        ``ack`` are items that are done: their ack travels with this call. If one of them is not held any more, this
        raises `LeaseLost`, and takes no item.
        """
        found = await self._get(1, timeout, ack)
        return found[0] if found else None

    async def get_many(self, count: int, timeout: float | None = None, *, ack: Sequence[Item] = ()) -> list[Item]:
        """Take up to ``count`` items. It waits for the first one only. Otherwise as `get`."""
        if count < 1:
            raise ValueError(f"found count={count}, expected at least 1")
        return await self._get(count, timeout, ack)

    async def _get(self, count: int, timeout: float | None, ack: Sequence[Item]) -> list[Item]:
        done = [item._taken for item in ack]
        try:
            found = await self._perform(self._verbs.get(count, timeout, done, asyncio.current_task()))
        finally:
            if self._verbs.needs_a_look:
                self._see_to_it()
        return [Item(self, taken) for taken in found]

    async def ack(self, items: Sequence[Item], token: int | None = None) -> None:
        """Say in one call that items are done.

        Raises `LeaseLost` if some of them are not held any more; the others are done.
        """
        await self._perform(self._verbs.ack([item._taken for item in items], token))

    async def task_done(self) -> None:
        """Say that the item is done which this task has held for longest, as of a `queue.Queue`.

        Raises ValueError if no item is held, `LeaseLost`.
        """
        await self._perform(self._verbs.task_done(asyncio.current_task()))

    async def join(self, timeout: float | None = None) -> None:
        """Wait until each item is done or dead. Raises `CallTimeout` after ``timeout`` seconds; None waits for ever."""
        await self._perform(self._verbs.join(timeout))

    async def peek(self, count: int = 1) -> list[Peeked]:
        """Look at up to ``count`` items that are ready, in the order in which they will be given."""
        return await self._perform(self._verbs.peek(count))

    async def dead(self, count: int = 100) -> list[Dead]:
        """Look at up to ``count`` items that have used up their attempts."""
        return await self._perform(self._verbs.dead(count))

    async def retry(self, id: Any = None) -> int:
        """Give the dead item ``id``, or all of them, new attempts. Returns how many there were."""
        return await self._perform(self._verbs.retry(id))

    async def stats(self) -> dict[str, Any]:
        """Count: ``ready``, ``delayed``, ``leased``, ``dead``, ``waiting`` (consumers), ``bytes``; and ``paused``."""
        found: dict[str, Any] = await self._perform(self._verbs.plain("stats"))
        return found

    async def pause(self) -> None:
        """Give no item to anybody until `resume`."""
        await self._perform(self._verbs.plain("pause"))

    async def resume(self) -> None:
        """Give items again."""
        await self._perform(self._verbs.plain("resume"))

    async def purge(self) -> int:
        """Drop all items that nobody holds. Returns how many there were."""
        found: int = await self._perform(self._verbs.plain("purge"))
        return found

    # -- how the steps are performed

    @property
    def _verbs(self) -> Verbs:
        """The verbs of this process, with sessions of its own."""
        if not MARK[0]:
            notice_fork()
        return self._own_verbs

    async def _perform(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    answer = await self._step(step)
                except BaseException as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as end:
            found: T = end.value
            return found

    def _step(self, step: Step) -> Awaitable[Any]:
        if isinstance(step, Call):
            return self._client.call(step.method, *step.params, timeout=step.timeout, idempotent=True)
        return asyncio.sleep(step.seconds)

    def _see_to_it(self) -> None:
        """Have the sessions looked after that hold items, from now on."""
        if self._watch is None or self._watch.done() or self._watch.get_loop() is not asyncio.get_running_loop():
            self._watch = asyncio.get_running_loop().create_task(_watch(weakref.ref(self)))

    async def _look(self) -> bool:
        """Do what `Verbs.look` says. Returns whether there is something to look after."""
        verbs = self._verbs
        if verbs.needs_a_look and not verbs.is_closed:
            with contextlib.suppress(RPCClusterError):  # the consumer's next call tells it
                await self._perform(verbs.look())
        return verbs.needs_a_look and not verbs.is_closed

    def _after_fork(self) -> None:
        self._begin()


async def _watch(found: weakref.ref[Queue]) -> None:
    """Look once a second, as long as items are held; see `rpccluster.client.sync.queue_watch`."""
    goes_on = True
    while goes_on:
        await asyncio.sleep(_LOOK_SECONDS)
        queue = found()
        goes_on = queue is not None and await queue._look()
        del queue
