"""Several addresses, and several connections to each, behind the names of one client.

Owns a client for each connection; which one a call takes is decided in `rpccluster.client.core.choice`. Safe to share
between threads.
"""

from __future__ import annotations

import _thread
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from time import monotonic
from typing import Any

from rpccluster.client.core.attempts import Attempts
from rpccluster.client.core.choice import PING_SECONDS
from rpccluster.client.core.exchange.outgoing import BOUNDS
from rpccluster.client.core.members import Members
from rpccluster.client.core.timeouts import CLIENTS
from rpccluster.client.sync.calling import Calling
from rpccluster.client.sync.client import Client
from rpccluster.client.sync.connection import Connection
from rpccluster.client.threads.forks import MARK, let_go_after, notice_fork
from rpccluster.errors import CallTimeout, RemoteError
from rpccluster.protocol.outline import Bounds

__all__ = ["Pool"]

_new_lock = _thread.RLock  # native ones where gevent has patched, too; nobody waits while he holds one


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
        self._members = Members(addresses, connections, make, _new_lock())
        super().__init__(timeout, Bounds(max_message_size, max_depth), self._members)
        let_go_after(self)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._members}>"

    @property
    def pending(self) -> int:
        """How many calls wait for their reply."""
        return self._members.pending

    def close(self) -> None:
        """Close every connection; calls that are pending end with `Lost` or `NotSent`, later ones with `NotSent`."""
        self._is_closed = True
        self._deferred.close()
        for client in self._members:
            client.close()

    def call_async(
        self, method: str, *params: Any, timeout: float | None = CLIENTS, idempotent: bool = False
    ) -> Future[Any]:
        """See `Calling.call_async`."""
        future = super().call_async(method, *params, timeout=timeout, idempotent=idempotent)
        future.add_done_callback(_note_end)
        return future

    def _find(self, attempts: Attempts, deadline_at: float) -> Connection:
        if not MARK[0]:
            notice_fork()
        if self._members.suspects:
            self._ping_suspects()
        return self._members.at(attempts.choose(monotonic()))._connected(deadline_at)

    def _ready(self, attempts: Attempts) -> Connection | None:
        if not MARK[0]:
            notice_fork()
        members = self._members
        if members.suspects:
            self._ping_suspects()
        loads, now = members.loads(), monotonic()
        place = members.look(loads, now)
        connection = members.at(place)._open_connection()
        if connection is not None:
            members.take(loads, now)
            attempts.started(place[0])
        return connection

    def _ping_suspects(self) -> None:
        members = self._members
        for address in members.to_ping(monotonic()):
            _ping(members.pingable(address), partial(self._note_ping, address))

    def _note_ping(self, address: int, is_alive: bool) -> None:
        self._members.pinged(address, is_alive, monotonic())

    def _after_fork(self) -> None:
        self._members.after_fork(_new_lock())
        self._deferred.end_in_child()


def _note_end(future: Any) -> None:
    if not future.cancelled() and isinstance(future.exception(), CallTimeout):
        future.attempts.timed_out(monotonic())


def _ping(clients: list[Client], tell: Callable[[bool], None]) -> None:
    """Ping over each connection there is, or a new one; ``tell`` whether any answered. Those that did not are set
    aside: it may be the way to the server that is dead, for a connection of that age."""
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
