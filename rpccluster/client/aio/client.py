"""The client for asyncio: it connects at its first call, and reconnects when the connection has ended.

Owns the one connection, which belongs to the loop in which it is used. In another loop, or after a fork, it opens a
new one.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable
from copy import copy
from functools import partial
from time import monotonic
from typing import Any

from rpccluster.address import Address, TCPAddress, UnixAddress, parse_address
from rpccluster.client.aio.calling import Calling
from rpccluster.client.aio.connection import Connection
from rpccluster.client.aio.dialing import dial, prove, within
from rpccluster.client.core.attempts import DIRECT, Attempts, Direct
from rpccluster.client.core.exchange.outgoing import BOUNDS
from rpccluster.client.core.lead import Lead
from rpccluster.client.core.timeouts import CLIENTS, seconds_left_here, seconds_of
from rpccluster.client.threads.forks import MARK, let_go_after, notice_fork
from rpccluster.errors import ConnectFailed, ConnectionLost, NotLeader, NotSent
from rpccluster.protocol.challenge import AuthKey, as_key
from rpccluster.protocol.outline import Bounds

__all__ = ["Client"]


class Client(Calling):
    """A client of the server at ``address``; parameters as for `rpccluster.Client`."""

    def __init__(
        self,
        address: str | Address,
        *,
        timeout: float | None = 10,
        connect_timeout: float | None = 5,
        max_message_size: int = BOUNDS.max_size,
        max_depth: int = BOUNDS.max_depth,
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
        lead = Lead(make, monotonic) if follow_leader else None
        super().__init__(timeout, Bounds(max_message_size, max_depth), DIRECT if lead is None else Direct(lead))
        self.address = address if isinstance(address, (TCPAddress, UnixAddress)) else parse_address(address)
        self.connect_timeout = connect_timeout
        self.max_message_size = max_message_size
        self._key = as_key(authkey)
        self._connection: Connection | None = None
        self._former: list[Connection] = []  # that take no more calls, and have some that will be answered
        self._connecting: asyncio.Task[Connection] | None = None
        let_go_after(self)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<aio.{type(self).__name__} {self.address}>"

    @property
    def pending(self) -> int:
        """The number of calls that wait for their reply."""
        at_leaders = 0 if self._route.lead is None else self._route.lead.pending
        return at_leaders + sum(connection.pending for connection in self._all_connections())

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as is known without asking."""
        return self._connection is not None and self._connection.is_open

    async def call(self, method: str, *params: Any, timeout: float | None = CLIENTS, idempotent: bool = False) -> Any:
        """Call ``method``, as `Calling.call` does; this is its shortest way, for the usual case."""
        loop = asyncio.get_running_loop()
        lead = self._route.lead
        seconds = self._seconds if timeout is CLIENTS else seconds_of(timeout, self._seconds)
        deadline_at = loop.time() + min(seconds, seconds_left_here(monotonic))
        connection = self._connection if lead is None or lead.begins_at(method) is None else None
        error = None
        if connection is not None and connection.is_open and connection.loop is loop and MARK[0]:
            try:
                return await connection.call(method, params, deadline_at)
            except (ConnectionLost, NotLeader) as ended:
                error = ended
        attempts = Attempts(self._route, idempotent, method)
        if error is not None:
            attempts.connected()
            self._go_on_after(error, attempts, deadline_at)
        return await self._persist(lambda again: again.call(method, params, deadline_at), deadline_at, attempts)

    def set_aside(self) -> None:
        """Take no more calls on the present connection; pending ones may still be answered."""
        if self._connection is not None:
            self._connection.set_aside()

    async def close(self) -> None:
        """Close the connection. Pending calls end with `Lost` or `NotSent`, later ones with `NotSent`."""
        self._is_closed = True
        loop = asyncio.get_running_loop()
        if self._connecting is not None and self._connecting.get_loop() is loop and not self._connecting.done():
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        connections = [connection for connection in self._all_connections() if connection.loop is loop]
        await asyncio.gather(*(connection.close("the client was closed") for connection in connections))
        await self._close_leaders()

    def _all_connections(self) -> list[Connection]:
        return self._former if self._connection is None else [*self._former, self._connection]

    def _find(self, attempts: Attempts, deadline_at: float) -> Awaitable[Connection]:
        attempts.choose()
        return self._connected(deadline_at)

    async def _connected(self, deadline_at: float) -> Connection:
        if not MARK[0]:
            notice_fork()
        connection = self._connection
        loop = asyncio.get_running_loop()
        if connection is not None and connection.loop is not loop:
            connection = self._connection = self._connecting = None
            self._former = []
        if connection is not None and connection.is_open:
            return connection
        task = self._connecting  # one for all waiting calls: it goes on if one of them is cancelled
        if task is None or task.done() or task.get_loop() is not loop:
            task = self._connecting = loop.create_task(self._connect())
            task.add_done_callback(_look_at_error)
        left = max(0.0, deadline_at - loop.time())
        await asyncio.wait({task}, timeout=None if left == math.inf else left)
        if not task.done():
            raise ConnectFailed(f"{self.address}: no connection within the call's timeout")
        if task.cancelled():
            raise NotSent("the client was closed; the call did not run")
        error = task.exception()
        if error is not None:
            raise copy(error)  # each waiting call raises its own
        return task.result()

    async def _connect(self) -> Connection:
        """Replace the connection."""
        if self._is_closed:
            raise NotSent("the client is closed; the call did not run")
        self._former = [connection for connection in self._all_connections() if connection.pending]
        try:
            return await within(self._open_connection(), self.connect_timeout)
        except asyncio.TimeoutError:
            raise ConnectFailed(f"{self.address}: no connection within {self.connect_timeout} seconds") from None
        except ConnectFailed as error:
            raise type(error)(f"{self.address}: {error}") from None
        except (OSError, UnicodeError) as error:
            raise ConnectFailed(f"{self.address}: {error}") from None

    async def _open_connection(self) -> Connection:
        loop = asyncio.get_running_loop()
        if self._key is not None:
            sock = await prove(self.address, self._key)
            _, self._connection = await loop.create_connection(self._new_connection, sock=sock)
        elif isinstance(self.address, UnixAddress):
            _, self._connection = await loop.create_unix_connection(self._new_connection, self.address.path)
        else:
            sock = await dial(self.address.host, self.address.port)
            _, self._connection = await loop.create_connection(self._new_connection, sock=sock)
        return self._connection

    def _new_connection(self) -> Connection:
        return Connection(self.max_message_size, self._bounds.max_depth)

    def _after_fork(self) -> None:
        self._former = []
        self._connection = self._connecting = None  # the parent's; its selector is shared with it: touch nothing


def _look_at_error(task: asyncio.Task[Connection]) -> None:
    """Retrieve the task's error, since asyncio complains about one that nobody retrieves."""
    if not task.cancelled():
        task.exception()
