"""The client for threads: it connects at its first call, and reconnects when the connection has ended.

Owns the one connection; in a process that gevent has patched, one for each native thread. Threads may share a client.
After a fork the child's client opens its own connection.
"""

from __future__ import annotations

import copy
import math
import threading
from functools import partial
from time import monotonic
from typing import Any

from rpccluster.address import Address, TCPAddress, UnixAddress, parse_address
from rpccluster.client.core.attempts import DIRECT, Attempts, Direct
from rpccluster.client.core.exchange.outgoing import BOUNDS
from rpccluster.client.core.lead import Lead
from rpccluster.client.core.timeouts import CLIENTS, deadline_here
from rpccluster.client.sync.calling import Calling
from rpccluster.client.sync.connection import Connection
from rpccluster.client.sync.wire import open_wire
from rpccluster.client.threads.forks import MARK, let_go_after, notice_fork
from rpccluster.client.threads.native import ended_hubs, this_hub
from rpccluster.errors import ConnectFailed, ConnectionLost, NotLeader, NotSent
from rpccluster.protocol.challenge import AuthKey, as_key
from rpccluster.protocol.outline import Bounds

__all__ = ["Client"]

_NEVER = math.inf


class Client(Calling):
    """A client of the server at ``address``; it connects at its first call.

    ``timeout`` limits a call in seconds, connecting included; ``connect_timeout`` limits connecting; None means no
    limit. ``max_message_size`` limits the bytes of a reply and of a request, ``max_depth`` the nesting of a request;
    the server has options of the same names. ``authkey``, ``"KEY"`` or ``("NAME", "KEY")``, is proved to the server,
    which has to prove it, too. Raises `AddressError` for an address that cannot be parsed, ValueError for a key that is
    too short.
    """

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
        self._connecting = threading.RLock()
        self._home: dict[str, Any] = {}  # "hub": the one that used this client first
        self._twins: dict[Any, Client] = {}  # by hub: those for other hubs
        let_go_after(self)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address}>"

    @property
    def pending(self) -> int:
        """The number of calls that wait for their reply."""
        clients = [self, *self._twins.values()]
        at_leaders = 0 if self._route.lead is None else self._route.lead.pending
        return at_leaders + sum(connection.pending for client in clients for connection in client._all_connections())

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as is known without asking."""
        if self._connection is not None and self._connection.is_open:
            return True
        return any(twin.is_connected for twin in list(self._twins.values()))

    def call(self, method: str, *params: Any, timeout: float | None = CLIENTS, idempotent: bool = False) -> Any:
        """Call ``method``, as `Calling.call` does; this is its shortest way, for the usual case."""
        now = monotonic()
        lead = self._route.lead
        deadline_at = now + (_NEVER if timeout is None else self._seconds if timeout is CLIENTS else timeout)
        if deadline_at > (here := deadline_here()):
            deadline_at = here
        connection = self._connection if lead is None or lead.begins_at(method) is None else None
        error = None
        if connection is not None and connection.is_open and MARK[0] and (connection.hub is None or connection.is_here):
            try:
                return connection.call(method, params, now, deadline_at, idempotent)
            except (ConnectionLost, NotLeader) as ended:
                error = ended
        attempts = Attempts(self._route, idempotent, method)
        if error is not None:
            attempts.connected()
            self._go_on_after(error, attempts, deadline_at)
        return self._persist(
            lambda again: again.call(method, params, monotonic(), deadline_at, idempotent), deadline_at, attempts
        )

    def set_aside(self) -> None:
        """Take no more calls on the present connection; pending ones may still be answered."""
        connection = self._here()._connection
        if connection is not None:
            connection.set_aside()

    def close(self) -> None:
        """Close the connection. Pending calls end with `Lost` or `NotSent`, later ones with `NotSent`."""
        if not MARK[0]:
            notice_fork()
        self._is_closed = True
        self._deferred.close()
        for connection in self._all_connections():
            connection.close("the client was closed")
        for twin in list(self._twins.values()):
            twin.close()
        self._close_leaders()

    def _all_connections(self) -> list[Connection]:
        return self._former if self._connection is None else [*self._former, self._connection]

    def _find(self, attempts: Attempts, deadline_at: float) -> Connection:
        attempts.choose()
        return self._connected(deadline_at)

    def _ready(self, attempts: Attempts) -> Connection | None:
        connection = self._open_connection()
        if connection is not None:
            attempts.started(0)
        return connection

    def _open_connection(self) -> Connection | None:
        """Return the present connection if it takes calls in this thread; else None."""
        if not MARK[0]:
            notice_fork()
        connection = self._connection
        if connection is None or connection.hub is not None:
            connection = self._here()._connection
        return connection if connection is not None and connection.is_open else None

    def _connected(self, deadline_at: float) -> Connection:
        if not MARK[0]:
            notice_fork()
        connection = self._connection
        if connection is not None and connection.is_open and (connection.hub is None or connection.is_here):
            return connection
        here = self._here()
        if here is not self:
            return here._connected(deadline_at)
        if self._connecting._is_owned():  # type: ignore[attr-defined]
            raise ConnectFailed(f"{self.address}: a signal handler or finalizer called while its thread was connecting")
        if not self._connecting.acquire(timeout=min(max(0.0, deadline_at - monotonic()), threading.TIMEOUT_MAX)):
            raise ConnectFailed(f"{self.address}: the attempt of another thread to connect took too long")
        try:
            return self._connect(deadline_at)
        finally:
            self._connecting.release()

    def _here(self) -> Client:
        """Return this client, or its twin for the present hub if another hub of gevent was the first to use it."""
        hub = this_hub()
        if hub is None or self._home.setdefault("hub", hub) is hub:  # in one step, as no lock serves several hubs
            return self
        twin = self._twins.get(hub)
        return self._new_twin(hub) if twin is None else twin

    def _new_twin(self, hub: Any) -> Client:
        twin = copy.copy(self)
        twin._home, twin._twins = {"hub": hub}, {}
        twin._connection, twin._former, twin._connecting = None, [], threading.RLock()
        let_go_after(twin)
        self._twins[hub] = twin
        twin._is_closed = self._is_closed  # close() may have come too early to see this one
        self._clear_away(ended_hubs(list(self._twins), hub))
        return twin

    def _clear_away(self, hubs: list[Any]) -> None:
        """Close the connections of ended threads, and end their futures."""
        orphans = [twin for twin in [self._twins.pop(hub, None) for hub in hubs] if twin is not None]
        for connection in [connection for twin in orphans for connection in twin._all_connections()]:
            for call in connection.orphaned():
                call.waiter.end(call.error, call)

    def _connect(self, deadline_at: float) -> Connection:
        """Replace the connection, unless another thread has just done so."""
        if self._is_closed:
            raise NotSent("the client is closed; the call did not run")
        connection = self._connection
        if connection is not None and connection.is_open:
            return connection
        if connection is not None:
            connection.discard()
            self._former = [former for former in self._all_connections() if former.pending]
        patience = math.inf if self.connect_timeout is None else self.connect_timeout
        wire = open_wire(self.address, min(deadline_at, monotonic() + patience), self._key)
        self._connection = connection = Connection(wire, self.max_message_size, self._dialect, self._bounds.max_depth)
        connection.await_closing()
        if self._is_closed:  # meanwhile: then close() may have come too early to see this one
            connection.close("the client was closed")
        return connection

    def _after_fork(self) -> None:
        """Drop the parent's connection in a forked child, and locks that threads of the parent may hold."""
        self._connecting = threading.RLock()
        self._deferred.end_in_child()
        connections, self._connection, self._former = self._all_connections(), None, []
        for call in [call for connection in connections for call in connection.abandon()]:
            if call.waiter is not None:
                call.waiter.end_in_child(call)
