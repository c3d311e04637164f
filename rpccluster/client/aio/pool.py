"""Several addresses, with several connections to each, behind the names of one client; on asyncio.

The counterpart of `rpccluster.client.sync.pool`, over the same choice.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from rpccluster.client.aio.calling import Calling
from rpccluster.client.aio.client import Client
from rpccluster.client.aio.connection import Connection
from rpccluster.client.core.attempts import Attempts
from rpccluster.client.core.choice import AGAIN_SECONDS, PING_SECONDS
from rpccluster.client.core.exchange.outgoing import BOUNDS
from rpccluster.client.core.lead import Lead
from rpccluster.client.core.members import Members
from rpccluster.client.core.waiting import Waiting
from rpccluster.client.registry.registry import Registry, is_registry
from rpccluster.client.threads.forks import MARK, let_go_after, notice_fork
from rpccluster.errors import ConnectFailed, NotSent, RemoteError, RPCClusterError
from rpccluster.protocol.challenge import AuthKey
from rpccluster.protocol.outline import Bounds

__all__ = ["Pool"]

T = TypeVar("T")


class Pool(Calling):
    """A client of the servers at ``addresses``, with at most ``connections`` to each.

    ``addresses`` may also be a registry that lists them: ``zookeeper://HOST:PORT,…/PATH`` or ``file:PATH.json``.
    If ``max_waiting`` calls already wait for a connection or a reply, a further one ends at once with `TooManyWaiting`;
    None means no limit. The other parameters are those of `Client`. Raises ValueError without an address,
    `AddressError` for an address that cannot be parsed.
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
        max_waiting: int | None = None,
        follow_leader: bool = False,
        authkey: AuthKey = None,
    ) -> None:
        make = partial(
            Client,
            timeout=timeout,
            connect_timeout=connect_timeout,
            max_message_size=max_message_size,
            max_depth=max_depth,
            authkey=authkey,
        )
        lock = threading.RLock()  # of no use to one thread, but cheaper than a context that does nothing
        self._waiting: Waiting = Waiting(max_waiting, lock)
        lead = Lead(make, monotonic) if follow_leader else None
        self._registry = Registry(addresses) if isinstance(addresses, str) and is_registry(addresses) else None
        self._listed: tuple[str, ...] | None = None  # by the registry, when it was last asked
        known = addresses if self._registry is None else None
        self._members = Members(known, connections, make, lock, monotonic, lead)
        super().__init__(timeout, Bounds(max_message_size, max_depth), self._members)
        let_go_after(self)
        self._pings: set[asyncio.Future[None]] = set()

    async def __aenter__(self) -> Pool:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<aio.{type(self).__name__} {self._registry or self._members}>"

    @property
    def pending(self) -> int:
        """The number of calls that wait for their reply."""
        return self._members.pending + (0 if self._members.lead is None else self._members.lead.pending)

    async def close(self) -> None:
        """Close every connection. Pending calls end with `Lost` or `NotSent`, later ones with `NotSent`."""
        self._is_closed = True
        if self._registry is not None:
            self._registry.close()
        for ping in self._pings:
            ping.cancel()
        await asyncio.gather(*(client.close() for client in self._members))
        await self._close_leaders()

    async def wait(self, seconds: float = 30) -> None:
        """Return as soon as one of the servers answers an ``rpc.ping``.

        All addresses are asked at once, and again after an error. Raises `ConnectFailed` if none answers within
        ``seconds``, `NotSent` if the pool is closed.
        """
        errors: dict[int, BaseException] = {}
        until = asyncio.get_running_loop().time() + seconds
        if self._registry is not None:
            await self._wait_for_members(self._registry, until)
            seconds = max(0.0, until - asyncio.get_running_loop().time())
        pings = [asyncio.ensure_future(self._served(address, errors)) for address in self._members.indexes]
        try:
            done, _ = await asyncio.wait(pings, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for ping in pings:
                ping.cancel()
            await asyncio.wait(pings)  # so that none is pending any more
        if self._is_closed:
            raise NotSent("the pool is closed")
        if not done:
            raise self._members.unserved(errors, seconds)
        done.pop().result()  # raises what is no error of the server, such as one of packing the ping

    async def _served(self, address: int, errors: dict[int, BaseException]) -> None:
        """Ping an address until it answers, or the pool is closed."""
        while not self._is_closed:
            try:
                with suppress(RemoteError):  # an answer, too
                    await self._members.pingable(address)[0].call("rpc.ping", timeout=None)
                self._members.pinged(address, True)
                return
            except RPCClusterError as error:
                errors[address] = error
                await asyncio.sleep(AGAIN_SECONDS)

    def stats(self) -> dict[str, Any]:
        """Return the present numbers, for an operator.

        In all: ``connections`` (open), ``pending`` (calls that wait for their reply), ``waiting`` (these, and calls
        that wait for a connection), ``refused`` (because of ``max_waiting``), ``failures`` (how often an address was
        set aside), and ``set_aside`` (how many addresses are). ``addresses`` has for each address its ``connections``,
        ``pending`` and ``failures``, and ``set_aside_seconds``, the time since it was set aside, or 0.
        """
        return {
            "waiting": self._waiting.count,
            "refused": self._waiting.refused,
            **self._members.stats(),
        }

    async def _find(self, attempts: Attempts, deadline_at: float) -> Connection:
        if self._registry is not None:
            await self._wait_for_members(self._registry, deadline_at)
        if self._members.suspects:
            self._ping_suspects()
        address, number = attempts.choose()
        return await self._members.clients[address][number]._connected(deadline_at)

    async def _wait_for_members(self, registry: Registry, deadline_at: float) -> None:
        """Take the registry's present list, and wait until there are servers at all."""
        while not self._has_members(registry) and not self._is_closed:
            left = deadline_at - asyncio.get_running_loop().time()
            if left <= 0:
                raise ConnectFailed(f"{registry}: {registry.why_empty}")
            await asyncio.sleep(min(left, AGAIN_SECONDS))

    def _has_members(self, registry: Registry) -> bool:
        if not MARK[0]:
            notice_fork()
        registry.follow()
        if registry.addresses is not self._listed:
            self._listed = listed = registry.addresses
            self._members.replace(listed or ())
        for client in self._members.drained():
            closing = asyncio.ensure_future(client.close())
            self._pings.add(closing)
            closing.add_done_callback(self._pings.discard)
        return self._members.addresses > 0

    def _after_fork(self) -> None:
        if self._registry is not None:
            self._registry.after_fork()

    def _ping_suspects(self) -> None:
        for address in self._members.to_ping():
            ping = asyncio.ensure_future(self._ping(address))
            self._pings.add(ping)
            ping.add_done_callback(self._pings.discard)

    async def _ping(self, address: int) -> None:
        """Ping over each connection of an address, or over a new one; set aside those that do not answer."""
        clients = self._members.pingable(address)
        pings = [client.call("rpc.ping", timeout=PING_SECONDS) for client in clients]
        answers = await asyncio.gather(*pings, return_exceptions=True)
        are_alive = [not isinstance(answer, BaseException) or isinstance(answer, RemoteError) for answer in answers]
        for client, is_alive in zip(clients, are_alive):
            if not is_alive:
                client.set_aside()
        self._members.pinged(address, any(are_alive))
