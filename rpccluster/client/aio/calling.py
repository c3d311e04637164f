"""The calls that `aio.Client` and `aio.Pool` have in common, over any connection that they find.

The counterpart of `rpccluster.client.sync.calling`, with coroutines.
"""

from __future__ import annotations

import abc
import asyncio
import math
from collections.abc import Awaitable, Callable, Collection
from time import monotonic
from typing import Any, TypeVar

from rpccluster.client.aio.connection import Connection
from rpccluster.client.core.attempts import DIRECT, ENDINGS, Attempts, Ending, Route
from rpccluster.client.core.batch import Batch
from rpccluster.client.core.exchange.outgoing import BOUNDS
from rpccluster.client.core.proxy import Proxy
from rpccluster.client.core.timeouts import CLIENTS, seconds_left_here, seconds_of
from rpccluster.client.core.waiting import Waiting
from rpccluster.errors import ConnectFailed, ConnectionLost, NotLeader, NotSent
from rpccluster.protocol.outline import Bounds

__all__ = ["AioBatch", "Calling"]

T = TypeVar("T")


class Calling(abc.ABC):
    """Makes calls. ``timeout`` limits a call in seconds, None means no limit; ``bounds`` are those of a message."""

    _waiting: Waiting | None = None  # of a pool

    def __init__(self, timeout: float | None, bounds: Bounds = BOUNDS, route: Route = DIRECT) -> None:
        self.timeout = timeout
        #: The server's methods as attributes: ``await client.proxy.sum(1, 2)``.
        self.proxy = Proxy(self.call)
        self._seconds = math.inf if timeout is None else timeout
        self._is_closed = False
        self._bounds = bounds
        self._route = route

    async def call(self, method: str, *params: Any, timeout: float | None = CLIENTS, idempotent: bool = False) -> Any:
        """Call ``method`` and return its result.

        ``timeout`` is in seconds; None means no limit. The default is that of the constructor. Calls are sent again,
        and raise, as in `rpccluster.Client.call`. Cancelling the call drops its reply, and keeps the connection.
        """
        deadline_at = self._deadline_at(timeout)
        return await self._persist(
            lambda connection: connection.call(method, params, deadline_at),
            deadline_at,
            Attempts(self._route, idempotent, method),
        )

    def call_async(
        self, method: str, *params: Any, timeout: float | None = CLIENTS, idempotent: bool = False
    ) -> asyncio.Task[Any]:
        """Make a call as `call` does, in a task of its own."""
        call = self.call(method, *params, timeout=timeout, idempotent=idempotent)
        return asyncio.get_running_loop().create_task(call)

    async def notify(self, method: str, *params: Any, timeout: float | None = CLIENTS) -> None:
        """Send a notification: the call has no reply, and its outcome stays unknown."""
        deadline_at = self._deadline_at(timeout)
        await self._persist(
            lambda connection: connection.notify(method, params, deadline_at), deadline_at, Attempts(self._route, False)
        )

    def batch(self, *, timeout: float | None = CLIENTS, idempotent: bool = False) -> AioBatch:
        """Gather calls in an ``async with`` block; its end sends them in one write, and waits for all.

        As `rpccluster.Client.batch`.
        """
        return AioBatch(self, timeout, idempotent)

    def _deadline_at(self, timeout: float | None) -> float:
        seconds = self._seconds if timeout is CLIENTS else seconds_of(timeout, self._seconds)
        return asyncio.get_running_loop().time() + min(seconds, seconds_left_here(monotonic))

    async def _persist(
        self,
        attempt: Callable[[Connection], Awaitable[T]],
        deadline_at: float,
        attempts: Attempts,
        calls: Collection[object] | None = None,
    ) -> T:
        """Attempt the call on a connection, and on others as long as ``attempts`` allow. Raises its error.

        Meanwhile the pool counts it as one waiting call, or as ``calls``.
        """
        waiting, calls = self._waiting, (attempts,) if calls is None else calls
        try:
            if waiting is not None:
                waiting.enter(calls)
            while True:
                try:
                    find = self._find_leader if attempts.is_led else self._find
                    connection = await find(attempts, deadline_at)
                    attempts.connected()
                    return await attempt(connection)
                except ENDINGS as error:
                    self._go_on_after(error, attempts, deadline_at)
        finally:
            if waiting is not None:
                waiting.leave(calls)

    def _go_on_after(self, error: Ending, attempts: Attempts, deadline_at: float) -> None:
        """Raise the error that ends the call, unless there may be another attempt."""
        given_up = attempts.failed(error, asyncio.get_running_loop().time() >= deadline_at)
        if given_up is not None or self._is_closed:
            raise given_up or attempts.error or error from None

    async def _find_leader(self, attempts: Attempts, deadline_at: float) -> Connection:
        """Find the connection of an attempt at the leader, or of one that waits until there may be a leader."""
        pause = attempts.again_at - monotonic()
        left = deadline_at - asyncio.get_running_loop().time()
        if pause > 0 and left > 0:
            await asyncio.sleep(min(pause, left))
        address = attempts.choose_leader()
        if pause >= left and attempts.refusal is not None:
            raise attempts.refusal
        if self._is_closed:
            raise NotSent("the client is closed; the call did not run")
        if address is None or self._route.lead is None:
            return await self._find(attempts, deadline_at)
        return await self._route.lead.client(address)._connected(deadline_at)

    async def _close_leaders(self) -> None:
        await asyncio.gather(*(client.close() for client in self._route.lead or ()))

    @abc.abstractmethod
    def _find(self, attempts: Attempts, deadline_at: float) -> Awaitable[Connection]:
        """Find the connection of the next attempt. Raises `ConnectFailed` or `NotSent`."""


class AioBatch(Batch):
    """The calls of one `Calling.batch`."""

    def __init__(self, caller: Calling, timeout: float | None, idempotent: bool) -> None:
        super().__init__(idempotent, Attempts(caller._route, idempotent), caller._bounds)
        self._caller = caller
        self._timeout = timeout

    async def __aenter__(self) -> AioBatch:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._calls:
            self._deadline_at = self._caller._deadline_at(self._timeout)
            try:
                await self._caller._persist(self._send, self._deadline_at, self._attempts, self._calls)
            except (ConnectionLost, ConnectFailed, NotLeader) as error:
                self._fail(error)

    async def _send(self, connection: Connection) -> None:
        await connection.call_all(*self._open(self._deadline_at), self._deadline_at)
        self._check()
