"""The ways to call that `aio.Client` and `aio.Pool` have in common, over whatever connection their `_persist` finds.

The counterpart of `rpccluster.client.sync.calling`, with coroutines.
"""

from __future__ import annotations

import abc
import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from rpccluster.client.aio.connection import Connection
from rpccluster.client.core.attempts import Attempts
from rpccluster.client.core.batch import Batch
from rpccluster.client.core.exchange.outgoing import BOUNDS
from rpccluster.client.core.proxy import Proxy
from rpccluster.client.core.timeouts import CLIENTS, seconds_of
from rpccluster.errors import CallTimeout, ConnectFailed, ConnectionLost
from rpccluster.protocol.outline import Bounds

__all__ = ["AioBatch", "Calling"]

T = TypeVar("T")


class Calling(abc.ABC):
    """``timeout`` is how many seconds a call may take, None without limit; ``bounds`` are those of a message."""

    def __init__(self, timeout: float | None, bounds: Bounds = BOUNDS) -> None:
        self.timeout = timeout
        #: The server's methods as attributes: ``await client.proxy.sum(1, 2)``.
        self.proxy = Proxy(self.call)
        self._seconds = math.inf if timeout is None else timeout
        self._is_closed = False
        self._bounds = bounds

    async def call(self, method: str, *params: Any, timeout: float | None = CLIENTS, idempotent: bool = False) -> Any:
        """Call ``method`` and return its result.

        ``timeout`` in seconds, None without limit; else that of the constructor. What is sent again, and what is
        raised, is as in `rpccluster.Client.call`. Cancelling it drops the reply when it comes, never the connection.
        """
        deadline_at = self._deadline_at(timeout)
        return await self._persist(
            lambda connection: connection.call(method, params, deadline_at), deadline_at, self._attempts(idempotent)
        )

    def call_async(
        self, method: str, *params: Any, timeout: float | None = CLIENTS, idempotent: bool = False
    ) -> asyncio.Task[Any]:
        """Like `call`, as a task that runs by itself."""
        call = self.call(method, *params, timeout=timeout, idempotent=idempotent)
        return asyncio.get_running_loop().create_task(call)

    async def notify(self, method: str, *params: Any, timeout: float | None = CLIENTS) -> None:
        """Call ``method`` without waiting for it: nobody learns whether it ran, or what became of it."""
        deadline_at = self._deadline_at(timeout)
        await self._persist(
            lambda connection: connection.notify(method, params, deadline_at), deadline_at, self._attempts(False)
        )

    def batch(self, *, timeout: float | None = CLIENTS, idempotent: bool = False) -> AioBatch:
        """Gather calls in an ``async with`` block; at its end they are sent in one write, and waited for.

        As in `rpccluster.Client.batch`.
        """
        return AioBatch(self, timeout, idempotent)

    def _attempts(self, idempotent: bool) -> Attempts:
        return Attempts(idempotent)

    def _deadline_at(self, timeout: float | None) -> float:
        seconds = self._seconds if timeout is CLIENTS else seconds_of(timeout, self._seconds)
        return asyncio.get_running_loop().time() + seconds

    @abc.abstractmethod
    def _note_timeout(self, connection: Connection) -> None:
        """A call had no reply in time on ``connection``."""

    @abc.abstractmethod
    async def _persist(
        self, attempt: Callable[[Connection], Awaitable[T]], deadline_at: float, attempts: Attempts
    ) -> T:
        """Attempt it on a connection, and on others as long as ``attempts`` allow. Raises what it ends with."""


class AioBatch(Batch):
    """What `batch` gives; see there."""

    def __init__(self, caller: Calling, timeout: float | None, idempotent: bool) -> None:
        super().__init__(idempotent, caller._attempts(idempotent), caller._bounds)
        self._caller = caller
        self._timeout = timeout

    async def __aenter__(self) -> AioBatch:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._calls:
            self._deadline_at = self._caller._deadline_at(self._timeout)
            try:
                await self._caller._persist(self._send, self._deadline_at, self._attempts)
            except (ConnectionLost, ConnectFailed) as error:
                self._fail(error)

    async def _send(self, connection: Connection) -> None:
        await connection.call_all(*self._open(self._deadline_at), self._deadline_at)
        if any(isinstance(call.error, CallTimeout) for call in self._calls):
            self._caller._note_timeout(connection)
        self._check()
