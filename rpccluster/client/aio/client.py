"""The client for asyncio: connects when needed, and again when the connection has ended.

Owns the one connection and sends again what may be sent again. Belongs to the loop in which it is used; in another
loop, or after a fork, it opens a connection of that loop's.
"""

from __future__ import annotations

import asyncio
import math
import os
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from rpccluster.address import UnixAddress, parse_address
from rpccluster.client.aio.link import Link
from rpccluster.client.attempts import Attempts
from rpccluster.client.batch import Batch
from rpccluster.client.proxy import Proxy
from rpccluster.errors import ConnectFailed, ConnectionLost, NotSent

__all__ = ["AioBatch", "Client"]

T = TypeVar("T")


class Client:
    """The same as `rpccluster.Client`, with coroutines. Cancelling a call drops its reply, never the connection."""

    def __init__(
        self,
        address: str,
        *,
        timeout: float | None = 10,
        connect_timeout: float | None = 5,
        max_message_size: int = 16 * 1024 * 1024,
    ) -> None:
        self.address = parse_address(address)
        self.timeout = timeout
        self.connect_timeout = connect_timeout
        self.max_message_size = max_message_size
        self.proxy = Proxy(self.call)
        self._seconds = math.inf if timeout is None else timeout
        self._is_closed = False
        self._link: Link | None = None
        self._connecting: asyncio.Lock | None = None
        _clients.add(self)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<aio.{type(self).__name__} {self.address}>"

    @property
    def pending(self) -> int:
        """How many calls wait for their reply."""
        return 0 if self._link is None else self._link.pending

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as is known without asking."""
        return self._link is not None and self._link.is_open

    async def call(self, method: str, *params: Any, timeout: float | None = None, idempotent: bool = False) -> Any:
        """Call ``method`` and return its result; what is sent again and what is raised is as in `rpccluster.Client`."""
        deadline_at = self._deadline_at(timeout)
        return await self._persist(
            lambda link: link.call(method, params, deadline_at), deadline_at, Attempts(idempotent)
        )

    def call_async(
        self, method: str, *params: Any, timeout: float | None = None, idempotent: bool = False
    ) -> asyncio.Task[Any]:
        """Like `call`, as a task that runs by itself."""
        return asyncio.get_running_loop().create_task(
            self.call(method, *params, timeout=timeout, idempotent=idempotent)
        )

    async def notify(self, method: str, *params: Any, timeout: float | None = None) -> None:
        """Call ``method`` without waiting for it: nobody learns whether it ran, or what became of it."""
        deadline_at = self._deadline_at(timeout)
        await self._persist(lambda link: link.notify(method, params, deadline_at), deadline_at, Attempts(False))

    def batch(self, *, timeout: float | None = None, idempotent: bool = False) -> AioBatch:
        """Gather calls in an ``async with`` block; at its end they are sent in one write, and waited for."""
        return AioBatch(self, timeout, idempotent)

    async def close(self) -> None:
        """Close the connection; calls that are pending end with `Lost` or `NotSent`, later ones with `NotSent`."""
        self._is_closed = True
        if self._link is not None and self._link.loop is asyncio.get_running_loop():
            await self._link.close("the client was closed")

    def _deadline_at(self, timeout: float | None) -> float:
        return asyncio.get_running_loop().time() + (self._seconds if timeout is None else timeout)

    async def _persist(self, attempt: Callable[[Link], Awaitable[T]], deadline_at: float, attempts: Attempts) -> T:
        """Attempt it on a connection, and on new ones as long as ``attempts`` allow."""
        while True:
            try:
                link = self._link
                if link is None or not link.is_open or link.loop is not asyncio.get_running_loop():
                    link = await self._connected(deadline_at)
                return await attempt(link)
            except (ConnectionLost, ConnectFailed) as error:
                if not attempts.may_go_on(error) or self._is_closed:
                    raise attempts.error from None

    async def _connected(self, deadline_at: float) -> Link:
        loop = asyncio.get_running_loop()
        if self._link is not None and self._link.loop is not loop:
            self._link = self._connecting = None
        if self._connecting is None:
            self._connecting = asyncio.Lock()
        left = deadline_at - loop.time()
        try:
            return await asyncio.wait_for(self._connect(self._connecting), None if left == math.inf else left)
        except asyncio.TimeoutError:
            raise ConnectFailed(f"{self.address}: no connection within the call's timeout") from None

    async def _connect(self, connecting: asyncio.Lock) -> Link:
        async with connecting:
            if self._is_closed:
                raise NotSent("the client is closed; the call did not run")
            if self._link is None or not self._link.is_open:
                self._link = await self._open()
            if self._is_closed:  # meanwhile: then close() may have come too early to see this one
                await self._link.close("the client was closed")
            return self._link

    async def _open(self) -> Link:
        try:
            return await asyncio.wait_for(self._open_link(), self.connect_timeout)
        except asyncio.TimeoutError:
            raise ConnectFailed(f"{self.address}: timed out") from None
        except (OSError, UnicodeError) as error:
            raise ConnectFailed(f"{self.address}: {error}") from None

    async def _open_link(self) -> Link:
        loop = asyncio.get_running_loop()
        if isinstance(self.address, UnixAddress):
            _, link = await loop.create_unix_connection(self._new_link, self.address.path)
            return link
        transport, link = await loop.create_connection(self._new_link, self.address.host, self.address.port)
        if transport.get_extra_info("sockname") == transport.get_extra_info("peername"):
            transport.abort()  # a free local port may be chosen that is the very one asked for
            raise ConnectionRefusedError("connected to itself: nothing listens there")
        return link

    def _new_link(self) -> Link:
        return Link(self.max_message_size)

    def _after_fork(self) -> None:
        self._link = self._connecting = None  # the parent's; its selector is shared with it: touch nothing


class AioBatch(Batch):
    """What `Client.batch` gives; see there."""

    def __init__(self, client: Client, timeout: float | None, idempotent: bool) -> None:
        super().__init__(idempotent)
        self._client = client
        self._timeout = timeout

    async def __aenter__(self) -> AioBatch:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._calls:
            self._deadline_at = self._client._deadline_at(self._timeout)
            try:
                await self._client._persist(self._send, self._deadline_at, self._attempts)
            except (ConnectionLost, ConnectFailed) as error:
                self._fail(error)

    async def _send(self, link: Link) -> None:
        await link.call_all(*self._open(self._deadline_at), self._deadline_at)
        self._check()


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
