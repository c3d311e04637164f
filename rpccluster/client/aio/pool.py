"""Several addresses, and several connections to each, behind the names of one client; on asyncio.

The counterpart of `rpccluster.client.sync.pool`, over the same choice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from contextlib import nullcontext
from functools import partial

from rpccluster.client.aio.calling import Calling
from rpccluster.client.aio.client import Client
from rpccluster.client.aio.connection import Connection
from rpccluster.client.core.attempts import Attempts
from rpccluster.client.core.choice import PING_SECONDS
from rpccluster.client.core.exchange.outgoing import BOUNDS
from rpccluster.client.core.members import Members
from rpccluster.errors import RemoteError
from rpccluster.protocol.outline import Bounds

__all__ = ["Pool"]


class Pool(Calling):
    """A client of the servers at ``addresses``, with at most ``connections`` to each.

    The other parameters are those of `Client`. Raises ValueError without an address, `AddressError` for one
    that cannot be parsed.
    """

    def __init__(
        self,
        addresses: str | Iterable[str],
        *,
        connections: int = 4,
        timeout: float | None = 10,
        connect_timeout: float | None = 5,
        max_message_size: int = BOUNDS.max_size,
        max_depth: int = BOUNDS.max_depth,
    ) -> None:
        make = partial(
            Client,
            timeout=timeout,
            connect_timeout=connect_timeout,
            max_message_size=max_message_size,
            max_depth=max_depth,
        )
        self._members = Members(addresses, connections, make, nullcontext())
        super().__init__(timeout, Bounds(max_message_size, max_depth), self._members)
        self._pings: set[asyncio.Future[None]] = set()

    async def __aenter__(self) -> Pool:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<aio.{type(self).__name__} {self._members}>"

    @property
    def pending(self) -> int:
        """How many calls wait for their reply."""
        return self._members.pending

    async def close(self) -> None:
        """Close every connection; calls that are pending end with `Lost` or `NotSent`, later ones with `NotSent`."""
        self._is_closed = True
        for ping in self._pings:
            ping.cancel()
        await asyncio.gather(*(client.close() for client in self._members))

    def _find(self, attempts: Attempts, deadline_at: float) -> Awaitable[Connection]:
        now = asyncio.get_running_loop().time()
        if self._members.suspects:
            self._ping_suspects(now)
        return self._members.at(attempts.choose(now))._connected(deadline_at)

    def _ping_suspects(self, now: float) -> None:
        for address in self._members.to_ping(now):
            ping = asyncio.ensure_future(self._ping(address))
            self._pings.add(ping)
            ping.add_done_callback(self._pings.discard)

    async def _ping(self, address: int) -> None:
        """Over each connection there is, or a new one; those that do not answer are set aside."""
        clients = self._members.pingable(address)
        pings = [client.call("rpc.ping", timeout=PING_SECONDS) for client in clients]
        answers = await asyncio.gather(*pings, return_exceptions=True)
        are_alive = [not isinstance(answer, BaseException) or isinstance(answer, RemoteError) for answer in answers]
        for client, is_alive in zip(clients, are_alive):
            if not is_alive:
                client.set_aside()
        self._members.pinged(address, any(are_alive), asyncio.get_running_loop().time())
