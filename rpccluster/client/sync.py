"""The client for plain and for gevent's threads: connects when needed, and again when the connection has ended.

Owns the one connection and the rule of what is sent again. Safe to share between threads; after a fork the
child's client has no connection and opens its own.
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from typing import Any

from rpccluster.address import parse_address
from rpccluster.client.connection import Connection
from rpccluster.client.wire import open_wire
from rpccluster.errors import ConnectFailed, Lost, NotSent

__all__ = ["Client"]

_TRIES = 3  # how often a call is sent at most, when it is certain or allowed that it may be sent again


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
        self.timeout = math.inf if timeout is None else timeout
        self.connect_timeout = math.inf if connect_timeout is None else connect_timeout
        self.max_message_size = max_message_size
        self._is_closed = False
        self._connection: Connection | None = None
        self._connecting = threading.Lock()
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

    def call(self, method: str, *params: Any, timeout: float | None = None, idempotent: bool = False) -> Any:
        """Call ``method`` and return its result.

        ``timeout`` in seconds, the client's if None. A call that certainly did not run because the connection
        ended is sent again; one that may have run only if it is ``idempotent``. Raises `RemoteError`,
        `CallTimeout`, `ConnectFailed`, `Lost`, `NotSent`, `ProtocolError`; for params that cannot be packed what
        msgpack raises (TypeError, ValueError, OverflowError), and nothing is sent.
        """
        deadline_at = time.monotonic() + (self.timeout if timeout is None else timeout)
        tries = _TRIES
        while True:
            try:
                return self._connected(deadline_at).call(method, params, deadline_at)
            except (Lost, NotSent) as error:
                tries -= 1
                if not tries or self._is_closed or not (idempotent or isinstance(error, NotSent)):
                    raise

    def notify(self, method: str, *params: Any, timeout: float | None = None) -> None:
        """Call ``method`` without waiting for it: nobody learns whether it ran, or what became of it.

        Returns when the kernel has taken the message. Raises like `call`.
        """
        deadline_at = time.monotonic() + (self.timeout if timeout is None else timeout)
        tries = _TRIES
        while True:
            try:
                return self._connected(deadline_at).notify(method, params, deadline_at)
            except NotSent:
                tries -= 1
                if not tries or self._is_closed:
                    raise

    def close(self) -> None:
        """Close the connection; calls that are pending end with `Lost` or `NotSent`, later ones with `NotSent`."""
        self._is_closed = True
        if self._connection is not None:
            self._connection.close("the client was closed")

    def _connected(self, deadline_at: float) -> Connection:
        connection = self._connection
        if connection is not None and connection.is_open:
            return connection
        return self._connect(deadline_at)

    def _connect(self, deadline_at: float) -> Connection:
        left = deadline_at - time.monotonic()
        if not self._connecting.acquire(timeout=min(max(0.0, left), threading.TIMEOUT_MAX)):
            raise ConnectFailed(f"{self.address}: another thread's attempt to connect took too long")
        try:
            if self._is_closed:
                raise NotSent("the client is closed; the call did not run")
            connection = self._connection
            if connection is None or not connection.is_open:
                if connection is not None:
                    connection.discard()
                wire = open_wire(self.address, min(deadline_at, time.monotonic() + self.connect_timeout))
                connection = self._connection = Connection(wire, self.max_message_size)
                if self._is_closed:  # meanwhile; then close() may have come too early to see this one
                    connection.close("the client was closed")
            return connection
        finally:
            self._connecting.release()

    def _after_fork(self) -> None:
        """In a child: the connection is the parent's. Locks may have been held by threads that are not here."""
        self._connecting = threading.Lock()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon()


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
