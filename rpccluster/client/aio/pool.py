"""Several addresses, and several connections to each, behind the names of one client; on asyncio.

The counterpart of `rpccluster.client.sync.pool`, over the same choice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from rpccluster.client.aio.calling import Calling
from rpccluster.client.aio.client import Client
from rpccluster.client.aio.connection import Connection
from rpccluster.client.core.attempts import Attempts
from rpccluster.client.core.choice import PING_SECONDS, Choice, Loads
from rpccluster.client.core.exchange.outgoing import BOUNDS
from rpccluster.errors import CallTimeout, ConnectFailed, ConnectionLost, RemoteError
from rpccluster.protocol.outline import Bounds

__all__ = ["Pool"]

T = TypeVar("T")


class Pool(Calling):
    """A client of the servers at ``addresses``, with at most ``connections`` to each.

    The other parameters are those of `Client`. Raises ValueError without an address, `AddressError` for one
    that cannot be parsed.
    """

    def __init__(
        self,
        addresses: Iterable[str],
        *,
        connections: int = 4,
        timeout: float | None = 10,
        connect_timeout: float | None = 5,
        max_message_size: int = BOUNDS.max_size,
        max_depth: int = BOUNDS.max_depth,
    ) -> None:
        super().__init__(timeout, Bounds(max_message_size, max_depth))
        self._clients = [
            [
                Client(
                    address,
                    timeout=timeout,
                    connect_timeout=connect_timeout,
                    max_message_size=max_message_size,
                    max_depth=max_depth,
                )
                for _ in range(connections)
            ]
            for address in ([addresses] if isinstance(addresses, str) else addresses)
        ]
        if not self._clients or connections < 1:
            raise ValueError(f"found {len(self._clients)} addresses and {connections} connections, expected some")
        self._choice = Choice(len(self._clients))
        self._pings: set[asyncio.Future[None]] = set()

    async def __aenter__(self) -> Pool:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<aio.{type(self).__name__} {' '.join(str(clients[0].address) for clients in self._clients)}>"

    @property
    def pending(self) -> int:
        """How many calls wait for their reply."""
        return sum(client.pending for clients in self._clients for client in clients)

    async def close(self) -> None:
        """Close every connection; calls that are pending end with `Lost` or `NotSent`, later ones with `NotSent`."""
        self._is_closed = True
        for ping in self._pings:
            ping.cancel()
        await asyncio.gather(*(client.close() for clients in self._clients for client in clients))

    async def _persist(
        self, attempt: Callable[[Connection], Awaitable[T]], deadline_at: float, attempts: Attempts
    ) -> T:
        unreached: dict[int, ConnectFailed] = {}
        time = asyncio.get_running_loop().time
        while True:
            address = None
            try:
                address, connection = await self._connected(deadline_at, unreached)
                return await attempt(connection)
            except CallTimeout:
                if address is not None:
                    self._choice.timed_out(address, time())
                raise
            except (ConnectionLost, ConnectFailed) as error:
                if address is not None:
                    self._choice.ended(address, time())
                if not attempts.may_go_on(error) or self._is_closed:
                    raise attempts.error from None

    def _note_timeout(self, connection: Connection) -> None:
        for address, clients in enumerate(self._clients):
            if any(client.has(connection) for client in clients):
                self._choice.timed_out(address, asyncio.get_running_loop().time())

    async def _connected(self, deadline_at: float, unreached: dict[int, ConnectFailed]) -> tuple[int, Connection]:
        """An address that is not ``unreached``, which grows, and a connection. Raises `ConnectFailed` if all are."""
        time = asyncio.get_running_loop().time
        while True:
            for address in self._choice.to_ping(time()) if self._choice.suspects else ():
                ping = asyncio.ensure_future(self._ping(address))
                self._pings.add(ping)
                ping.add_done_callback(self._pings.discard)
            chosen = self._choice.choose(self._loads(), time(), unreached)
            if chosen is None or (unreached and time() >= deadline_at):
                raise ConnectFailed("; ".join(map(str, unreached.values())))
            address, number = chosen
            try:
                connection = await self._clients[address][number]._connected(deadline_at)
            except ConnectFailed as error:
                unreached[address] = error
                self._choice.failed(address, time())
            else:
                self._choice.reached(address)
                return address, connection

    async def _ping(self, address: int) -> None:
        """Over each connection there is, or a new one; those that do not answer are set aside."""
        clients = self._clients[address]
        clients = [client for client in clients if client.is_connected] or clients[:1]
        pings = [client.call("rpc.ping", timeout=PING_SECONDS) for client in clients]
        answers = await asyncio.gather(*pings, return_exceptions=True)
        are_alive = [not isinstance(answer, BaseException) or isinstance(answer, RemoteError) for answer in answers]
        for client, is_alive in zip(clients, are_alive):
            if not is_alive:
                client.set_aside()
        self._choice.pinged(address, any(are_alive), asyncio.get_running_loop().time())

    def _attempts(self, idempotent: bool) -> Attempts:
        return Attempts(idempotent, sum(map(len, self._clients)))

    def _loads(self) -> Loads:
        return [[client.pending if client.is_connected else None for client in clients] for clients in self._clients]
