"""The client for threads, plain ones and gevent's: connects when needed, and again when the connection has ended.

Owns the one connection and sends again what may be sent again. Safe to share between threads; after a fork the
child's client has no connection and opens its own.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from time import monotonic
from typing import Any, TypeVar

from rpccluster.address import parse_address
from rpccluster.client.attempts import Attempts, Unreached
from rpccluster.client.batch import Batch
from rpccluster.client.calls import Call
from rpccluster.client.connection import Connection
from rpccluster.client.future import CallFuture, Resender
from rpccluster.client.proxy import Proxy
from rpccluster.client.wire import open_wire
from rpccluster.errors import ConnectFailed, ConnectionLost, NotSent

__all__ = ["Client", "SyncBatch"]

T = TypeVar("T")


class Client:
    """A client of the server at ``address``, which connects when it is first used.

    ``timeout`` is how many seconds a call may take, connecting included, and ``connect_timeout`` how many of
    these connecting may take; None means no limit. ``max_message_size`` bounds a reply, in bytes.
    Raises `AddressError` for an address that cannot be parsed.
    """

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
        self._connection: Connection | None = None
        self._connecting = threading.Lock()
        self._resender = Resender()
        _clients.add(self)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address}>"

    @property
    def pending(self) -> int:
        """How many calls wait for their reply."""
        return 0 if self._connection is None else self._connection.pending

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as is known without asking."""
        return self._connection is not None and self._connection.is_open

    def call(self, method: str, *params: Any, timeout: float | None = None, idempotent: bool = False) -> Any:
        """Call ``method`` and return its result.

        ``timeout`` in seconds, the client's if None. A call that certainly did not run because the connection
        ended is sent again; one that may have run only if it is ``idempotent``. Raises `RemoteError`,
        `CallTimeout`, `ConnectFailed`, `Lost`, `NotSent`, `ProtocolError`; for params that cannot be packed what
        msgpack raises (TypeError, ValueError, OverflowError), and nothing is sent.
        """
        now = monotonic()
        deadline_at = now + (self._seconds if timeout is None else timeout)
        connection = self._connection
        error = None
        if connection is not None and connection.is_open:  # the usual case
            try:
                return connection.call(method, params, now, deadline_at)
            except ConnectionLost as lost:
                error = lost
        attempts = Attempts(idempotent)
        if error is not None:
            self._check(attempts, error)
        return self._persist(lambda again: again.call(method, params, monotonic(), deadline_at), deadline_at, attempts)

    def call_async(
        self, method: str, *params: Any, timeout: float | None = None, idempotent: bool = False
    ) -> Future[Any]:
        """Like `call`, but return a future at once; it ends within ``timeout``, whatever happens to the server.

        Connects before it returns, if need be. Whatever `call` raises but for params that cannot be packed is
        the future's. Its callbacks run in the thread that receives the reply.
        """
        deadline_at = self._deadline_at(timeout)
        attempts = Attempts(idempotent)

        def start(connection: Connection) -> None:
            call = Call(deadline_at, future)
            future.forget = lambda: connection.forget(call)
            connection.start(call, method, params)

        def send(future: CallFuture) -> None:
            try:
                self._persist(start, deadline_at, attempts)
            except (ConnectionLost, ConnectFailed) as error:
                future.end(error)

        def send_again(future: CallFuture) -> None:
            self._resender.submit(lambda: send(future))

        future = CallFuture(attempts, send_again)
        send(future)
        return future

    def notify(self, method: str, *params: Any, timeout: float | None = None) -> None:
        """Call ``method`` without waiting for it: nobody learns whether it ran, or what became of it.

        Returns when the kernel has taken the message. Raises like `call`.
        """
        deadline_at = self._deadline_at(timeout)
        self._persist(lambda connection: connection.notify(method, params, deadline_at), deadline_at, Attempts(False))

    def batch(self, *, timeout: float | None = None, idempotent: bool = False) -> SyncBatch:
        """Gather calls in a ``with`` block; at its end they are sent in one write, and waited for.

        ``timeout`` is for all of them together. Raises at the end of the block if nothing could be sent
        (`ConnectFailed`, `NotSent`); what became of each call is in the call.
        """
        return SyncBatch(self, timeout, idempotent)

    def close(self) -> None:
        """Close the connection; calls that are pending end with `Lost` or `NotSent`, later ones with `NotSent`."""
        self._is_closed = True
        if self._connection is not None:
            self._connection.close("the client was closed")

    def _deadline_at(self, timeout: float | None) -> float:
        return monotonic() + (self._seconds if timeout is None else timeout)

    def _persist(self, attempt: Callable[[Connection], T], deadline_at: float, attempts: Attempts) -> T:
        """Attempt it on a connection, and on new ones as long as ``attempts`` allow."""
        while True:
            try:
                return attempt(self._connected(deadline_at))
            except (ConnectionLost, ConnectFailed) as error:
                self._check(attempts, error)

    def _check(self, attempts: Attempts, error: Unreached) -> None:
        if not attempts.may_go_on(error) or self._is_closed:
            raise attempts.error

    def _connected(self, deadline_at: float) -> Connection:
        connection = self._connection
        if connection is not None and connection.is_open:
            return connection
        if not self._connecting.acquire(timeout=min(max(0.0, deadline_at - monotonic()), threading.TIMEOUT_MAX)):
            raise ConnectFailed(f"{self.address}: the attempt of another thread to connect took too long")
        try:
            return self._connect(deadline_at)
        finally:
            self._connecting.release()

    def _connect(self, deadline_at: float) -> Connection:
        """Replace the connection, unless another thread just did."""
        if self._is_closed:
            raise NotSent("the client is closed; the call did not run")
        connection = self._connection
        if connection is not None and connection.is_open:
            return connection
        if connection is not None:
            connection.discard()
        patience = math.inf if self.connect_timeout is None else self.connect_timeout
        wire = open_wire(self.address, min(deadline_at, monotonic() + patience))
        self._connection = connection = Connection(wire, self.max_message_size)
        if self._is_closed:  # meanwhile: then close() may have come too early to see this one
            connection.close("the client was closed")
        return connection

    def _after_fork(self) -> None:
        """In a child: the connection is the parent's. Locks may have been held by threads that are not here."""
        self._connecting = threading.Lock()
        self._resender = Resender()
        connection, self._connection = self._connection, None
        for call in connection.abandon() if connection is not None else ():
            if call.waiter is not None and call.error is not None:
                call.waiter.end_in_child(call.error)


class SyncBatch(Batch):
    """What `Client.batch` gives; see there."""

    def __init__(self, client: Client, timeout: float | None, idempotent: bool) -> None:
        super().__init__(idempotent)
        self._client = client
        self._timeout = timeout

    def __enter__(self) -> SyncBatch:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._calls:
            self._deadline_at = self._client._deadline_at(self._timeout)
            try:
                self._client._persist(self._send, self._deadline_at, self._attempts)
            except (ConnectionLost, ConnectFailed) as error:
                self._fail(error)

    def _send(self, connection: Connection) -> None:
        connection.call_all(*self._open(self._deadline_at))
        self._check()


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
