"""Several addresses, and several connections to each, behind the names of one client.

Owns a client for each connection, and what is known of the addresses; which one a call takes is decided in
`rpccluster.client.core.choice`. Safe to share between threads.
"""

from __future__ import annotations

import _thread
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from rpccluster.client.core.attempts import Attempts
from rpccluster.client.core.choice import PING_SECONDS, Choice, Loads
from rpccluster.client.core.exchange.outgoing import BOUNDS
from rpccluster.client.core.timeouts import CLIENTS
from rpccluster.client.sync.calling import Calling
from rpccluster.client.sync.client import Client
from rpccluster.client.sync.connection import Connection
from rpccluster.client.threads.forks import MARK, let_go_after, notice_fork
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
        self._addresses = len(self._clients)
        self._choice = Choice(self._addresses)
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
        self._close_expirers()
        for clients in self._clients:
            for client in clients:
                client.close()

    def call_async(
        self, method: str, *params: Any, timeout: float | None = CLIENTS, idempotent: bool = False
    ) -> Future[Any]:
        """See `Calling.call_async`."""
        future = super().call_async(method, *params, timeout=timeout, idempotent=idempotent)
        future.add_done_callback(self._note_end)
        return future

    def _note_end(self, future: Any) -> None:
        if not future.cancelled() and isinstance(future.exception(), CallTimeout):
            self._note_timeout(future.connection)

    def _note_timeout(self, connection: Connection) -> None:
        for address, clients in enumerate(self._clients):
            if any(client.has(connection) for client in clients):
                with self._lock:
                    self._choice.timed_out(address, monotonic())

    def _persist(self, attempt: Callable[[Connection], T], deadline_at: float, attempts: Attempts) -> T:
        unreached: dict[int, ConnectFailed] = {}
        while True:
            address = None
            try:
                address, connection = self._connected(deadline_at, unreached)
                return attempt(connection)
            except CallTimeout:
                if address is not None:
                    with self._lock:
                        self._choice.timed_out(address, monotonic())
                raise
            except (ConnectionLost, ConnectFailed) as error:
                if address is not None:
                    with self._lock:
                        self._choice.ended(address, monotonic())
                if not attempts.may_go_on(error) or self._is_closed:
                    raise attempts.error from None

    def _connected(self, deadline_at: float, unreached: dict[int, ConnectFailed]) -> tuple[int, Connection]:
        """An address that is not ``unreached``, which grows, and a connection. Raises `ConnectFailed` if all are."""
        if not MARK[0]:
            notice_fork()
        while True:
            chosen = self._choose(unreached)
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
                return address, connection

    def _choose(self, unreached: dict[int, ConnectFailed]) -> tuple[int, int] | None:
        if self._choice.suspects:
            self._ping_suspects()
        with self._lock:
            return self._choice.choose(self._loads(), monotonic(), unreached)

    def _ping_suspects(self) -> None:
        with self._lock:
            addresses = self._choice.to_ping(monotonic())
        for address in addresses:
            _ping(self._clients[address], partial(self._note_ping, address))

    def _note_ping(self, address: int, is_alive: bool) -> None:
        with self._lock:
            self._choice.pinged(address, is_alive, monotonic())

    def _ready(self) -> Connection | None:
        if not MARK[0]:
            notice_fork()
        if self._choice.suspects:
            self._ping_suspects()
        loads, now = self._loads(), monotonic()
        with self._lock:
            chosen = self._choice.look(loads, now)
        ready = None if chosen is None else self._clients[chosen[0]][chosen[1]]._ready()
        if ready is not None:
            with self._lock:
                self._choice.choose(loads, now)
        return ready

    def _attempts(self, idempotent: bool) -> Attempts:
        return Attempts(idempotent, sum(map(len, self._clients)))

    def _loads(self) -> Loads:
        return [[client.pending if client.is_connected else None for client in clients] for clients in self._clients]

    def _after_fork(self) -> None:
        self._lock = _thread.RLock()
        self._leave_futures_to_the_parent()


def _ping(clients: list[Client], tell: Callable[[bool], None]) -> None:
    """Ping over each connection there is, or a new one; ``tell`` whether any answered. Those that did not are set
    aside: it may be the way to the server that is dead, for a connection of that age."""
    clients = [client for client in clients if client.is_connected] or clients[:1]
    answers: list[bool] = []

    def note(client: Client, future: Any) -> None:
        is_alive = future.exception() is None or isinstance(future.exception(), RemoteError)
        if not is_alive:
            client.set_aside()
        answers.append(is_alive)
        if len(answers) == len(clients):
            tell(any(answers))

    for client in clients:
        client.call_async("rpc.ping", timeout=PING_SECONDS).add_done_callback(partial(note, client))
