"""Several addresses, and several connections to each, behind the names of one client.

Owns a client for each connection, and what is known of the addresses; which one a call takes is decided in
`rpccluster.client.choice`. Safe to share between threads.
"""

from __future__ import annotations

import _thread
from collections.abc import Callable, Iterable
from time import monotonic
from typing import TypeVar

from rpccluster.client.attempts import Attempts
from rpccluster.client.calling import Calling
from rpccluster.client.choice import Choice, Loads
from rpccluster.client.connection import Connection
from rpccluster.client.forks import MARK, let_go_after, notice_fork
from rpccluster.client.outgoing import BOUNDS
from rpccluster.client.sync import Client
from rpccluster.errors import ConnectFailed, ConnectionLost
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
        self._lock = _thread.RLock()  # native ones where gevent has patched, too; nobody waits while he holds it
        let_go_after(self)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {' '.join(str(clients[0].address) for clients in self._clients)}>"

    @property
    def pending(self) -> int:
        """How many calls wait for their reply."""
        return sum(client.pending for clients in self._clients for client in clients)

    def close(self) -> None:
        """Close every connection; calls that are pending end with `Lost` or `NotSent`, later ones with `NotSent`."""
        self._is_closed = True
        for clients in self._clients:
            for client in clients:
                client.close()

    def _persist(self, attempt: Callable[[Connection], T], deadline_at: float, attempts: Attempts) -> T:
        unreached: dict[int, ConnectFailed] = {}
        while True:
            try:
                return attempt(self._connected(deadline_at, unreached))
            except (ConnectionLost, ConnectFailed) as error:
                if not attempts.may_go_on(error) or self._is_closed:
                    raise attempts.error from None

    def _connected(self, deadline_at: float, unreached: dict[int, ConnectFailed]) -> Connection:
        """A connection to an address that is not ``unreached``, which grows. Raises `ConnectFailed` if all are."""
        if not MARK[0]:
            notice_fork()
        while True:
            with self._lock:
                chosen = self._choice.choose(self._loads(), monotonic(), unreached)
            if chosen is None or (unreached and monotonic() >= deadline_at):
                raise ConnectFailed("; ".join(map(str, unreached.values())))
            address, number = chosen
            try:
                connection = self._clients[address][number]._connected(deadline_at)
            except ConnectFailed as error:
                unreached[address] = error
                with self._lock:
                    self._choice.failed(address, monotonic())
            else:
                with self._lock:
                    self._choice.reached(address)
                return connection

    def _attempts(self, idempotent: bool) -> Attempts:
        return Attempts(idempotent, sum(map(len, self._clients)))

    def _loads(self) -> Loads:
        return [[client.pending if client.is_connected else None for client in clients] for clients in self._clients]

    def _after_fork(self) -> None:
        self._lock = _thread.RLock()
        self._resenders = {}
