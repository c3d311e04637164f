"""The calls that `Client` and `Pool` have in common, over any connection that they find.

Owns the public names for threads; `Client` and `Pool` find a connection, and a new one when it has ended.
"""

from __future__ import annotations

import abc
import math
import threading
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from rpccluster.client.core.attempts import DIRECT, ENDINGS, Attempts, Ending, Route
from rpccluster.client.core.batch import Batch
from rpccluster.client.core.exchange.call import Call
from rpccluster.client.core.exchange.dialect import DIALECT
from rpccluster.client.core.exchange.outgoing import BOUNDS, body_of, body_packer
from rpccluster.client.core.proxy import Proxy
from rpccluster.client.core.timeouts import CLIENTS, deadline_here, seconds_of
from rpccluster.client.core.waiting import Waiting
from rpccluster.client.sync.connection import Connection
from rpccluster.client.threads.deferred import Deferred
from rpccluster.client.threads.future import CallFuture
from rpccluster.errors import ConnectFailed, ConnectionLost, NotLeader, NotSent
from rpccluster.protocol.outline import Bounds

__all__ = ["Calling", "SyncBatch"]

T = TypeVar("T")

_THREADS = 4  # that send deferred calls, where the number of servers is not known


class Calling(abc.ABC):
    """Makes calls. ``timeout`` limits a call in seconds, None means no limit; ``bounds`` are those of a message."""

    _dialect = DIALECT
    _waiting: Waiting | None = None  # of a pool

    def __init__(self, timeout: float | None, bounds: Bounds = BOUNDS, route: Route = DIRECT) -> None:
        self.timeout = timeout
        #: The server's methods as attributes: ``client.proxy.sum(1, 2)``.
        self.proxy = Proxy(self.call)
        self._seconds = math.inf if timeout is None else timeout
        self._is_closed = False
        self._bounds = bounds
        self._route = route
        self._deferred = Deferred(route.addresses or _THREADS)

    def call(self, method: str, *params: Any, timeout: float | None = CLIENTS, idempotent: bool = False) -> Any:
        """Call ``method`` and return its result.

        ``timeout`` is in seconds; None means no limit. The default is that of the constructor. A call that certainly
        did not run because the connection ended is sent again; one that may have run only if it is ``idempotent``.
        Raises `RemoteError`, `CallTimeout`, `ConnectFailed`, `Lost`, `NotSent`, `ProtocolError`. If the params cannot
        be packed, raises msgpack's error (TypeError, ValueError, OverflowError), or ValueError for a call above
        ``max_message_size`` or ``max_depth``, and sends nothing.
        """
        deadline_at = self._deadline_at(timeout)
        return self._persist(
            lambda connection: connection.call(method, params, monotonic(), deadline_at),
            deadline_at,
            Attempts(self._route, idempotent, method),
        )

    def call_async(
        self, method: str, *params: Any, timeout: float | None = CLIENTS, idempotent: bool = False
    ) -> Future[Any]:
        """Make a call as `call` does, but return a future at once, which ends within ``timeout``, whatever happens.

        It never waits for a connection: without one the call is packed, and sent when there is one. The future gets
        every error of `call` except those of params that cannot be packed. One thread of the client runs the callbacks,
        and logs their errors.
        """
        return self._start(method, params, self._deadline_at(timeout), Attempts(self._route, idempotent, method))

    def _start(self, method: str, params: Iterable[Any], deadline_at: float, attempts: Attempts) -> CallFuture:
        """Start the call of a future. While it has not ended, the pool counts ``attempts`` as a waiting call."""
        ready = self._ready_leader(attempts) if attempts.is_led else self._ready(attempts)
        body = body_packer(self._bounds, self._dialect)(method, params) if ready is None else None
        sender = _Sender(self, method, params, body, deadline_at)
        future = CallFuture(attempts, sender, self._waiting)
        if ready is None:
            sender.send_soon(future)
            return future
        try:
            sender.start(future, ready)
        except ConnectionLost as error:
            given_up = error if ready.is_open else attempts.failed(error, False)  # open: this thread cannot call now
            sender.send_soon(future) if given_up is None else future.end(given_up)
        return future

    def notify(self, method: str, *params: Any, timeout: float | None = CLIENTS) -> None:
        """Send a notification: the call has no reply, and its outcome stays unknown.

        Returns when the kernel has taken the message. Raises as `call` does.
        """
        deadline_at = self._deadline_at(timeout)
        self._persist(
            lambda connection: connection.notify(method, params, deadline_at),
            deadline_at,
            Attempts(self._route, False),
        )

    def batch(self, *, timeout: float | None = CLIENTS, idempotent: bool = False) -> SyncBatch:
        """Gather calls in a ``with`` block; its end sends them in one write, and waits for all.

        ``timeout`` is for all of them together. The end of the block raises `ConnectFailed` or `NotSent` if nothing
        could be sent; each call holds its own outcome.
        """
        return SyncBatch(self, timeout, idempotent)

    def _persist(
        self,
        attempt: Callable[[Connection], T],
        deadline_at: float,
        attempts: Attempts,
        calls: Collection[object] | None = None,
    ) -> T:
        """Attempt the call on a connection, and on others as long as ``attempts`` allow. Raises its error.

        Meanwhile the pool counts it as one waiting call, or as ``calls``.
        """
        waiting, calls = self._waiting, (attempts,) if calls is None else calls
        try:
            if waiting is not None:
                waiting.enter(calls)
            while True:
                try:
                    find = self._find_leader if attempts.is_led else self._find
                    connection = find(attempts, deadline_at)
                    attempts.connected()
                    return attempt(connection)
                except ENDINGS as error:
                    self._go_on_after(error, attempts, deadline_at)
        finally:
            if waiting is not None:
                waiting.leave(calls)

    def _go_on_after(self, error: Ending, attempts: Attempts, deadline_at: float) -> None:
        """Raise the error that ends the call, unless there may be another attempt."""
        given_up = attempts.failed(error, monotonic() >= deadline_at)
        if given_up is not None or self._is_closed:
            raise given_up or attempts.error or error from None

    @abc.abstractmethod
    def _find(self, attempts: Attempts, deadline_at: float) -> Connection:
        """Find the connection of the next attempt. Raises `ConnectFailed` or `NotSent`."""

    @abc.abstractmethod
    def _ready(self, attempts: Attempts) -> Connection | None:
        """Return an open connection for a call that cannot wait for one; None if none is known."""

    def _find_leader(self, attempts: Attempts, deadline_at: float) -> Connection:
        """Find the connection of an attempt at the leader, or of one that waits until there may be a leader."""
        pause = min(attempts.again_at, deadline_at) - monotonic()
        if pause > 0:
            threading.Event().wait(pause)
        address = attempts.choose_leader()
        if monotonic() >= deadline_at and attempts.refusal is not None:
            raise attempts.refusal
        if self._is_closed:
            raise NotSent("the client is closed; the call did not run")
        if address is None or self._route.lead is None:
            return self._find(attempts, deadline_at)
        return self._route.lead.client(address)._connected(deadline_at)

    def _ready_leader(self, attempts: Attempts) -> Connection | None:
        """Return an open connection to the leader for a call that cannot wait for one; None if none is known."""
        address = attempts.choose_leader()
        if address is None or self._route.lead is None:
            return None
        connection: Connection | None = self._route.lead.client(address)._open_connection()
        if connection is not None:
            attempts.connected()
        return connection

    def _close_leaders(self) -> None:
        for client in self._route.lead or ():
            client.close()

    def _deadline_at(self, timeout: float | None) -> float:
        seconds = self._seconds if timeout is CLIENTS else seconds_of(timeout, self._seconds)
        return min(monotonic() + seconds, deadline_here())


class _Sender:
    """Sends the call of one future: over a connection, or later in a thread that may wait for one."""

    __slots__ = ("_body", "_caller", "_deadline_at", "_method", "_params")

    def __init__(
        self, caller: Calling, method: str, params: Iterable[Any], body: bytes | None, deadline_at: float
    ) -> None:
        self._caller = caller
        self._method = method
        self._params = params
        self._body = body
        self._deadline_at = deadline_at

    def start(self, future: CallFuture, connection: Connection) -> None:
        """Send the call over ``connection``, unless the future has ended meanwhile. Raises `NotSent`."""
        if future.expirer is not None and not future.expirer.claim(future):
            return
        call = Call(self._deadline_at, future)
        future.forget = partial(connection.forget, call)
        connection.start(call, self._method, self._params, self._body)

    def send(self, future: CallFuture) -> None:
        """Attempt the call in this thread; see `rpccluster.client.threads.future.Sender.send`."""
        try:
            self._caller._persist(partial(self.start, future), self._deadline_at, future.attempts, ())
        except (ConnectionLost, ConnectFailed) as error:
            future.end(error)

    def send_soon(self, future: CallFuture) -> None:
        """Attempt it in another thread; see `rpccluster.client.threads.future.Sender.send_soon`."""
        if self._body is None and future.request is not None:  # the params may have changed since
            self._body = body_of(future.request)
        self._caller._deferred.add(future, self._deadline_at)


class SyncBatch(Batch):
    """The calls of one `Calling.batch`."""

    def __init__(self, caller: Calling, timeout: float | None, idempotent: bool) -> None:
        super().__init__(idempotent, Attempts(caller._route, idempotent), caller._bounds)
        self._caller = caller
        self._timeout = timeout

    def __enter__(self) -> SyncBatch:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._calls:
            self._deadline_at = self._caller._deadline_at(self._timeout)
            try:
                self._caller._persist(self._send, self._deadline_at, self._attempts, self._calls)
            except (ConnectionLost, ConnectFailed, NotLeader) as error:
                self._fail(error)

    def _send(self, connection: Connection) -> None:
        connection.call_all(*self._open(self._deadline_at))
        self._check()
