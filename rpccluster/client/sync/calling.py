"""The ways to call that `Client` and `Pool` have in common, over whatever connection their `_persist` finds.

Owns the public names for threads; finding a connection, and a new one when it ends, is theirs.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from concurrent.futures import Future
from time import monotonic
from typing import Any, TypeVar

from rpccluster.client.core.attempts import Attempts
from rpccluster.client.core.batch import Batch
from rpccluster.client.core.exchange.calls import Call, body_of, body_packer
from rpccluster.client.core.exchange.dialect import DIALECT
from rpccluster.client.core.exchange.outgoing import BOUNDS
from rpccluster.client.core.proxy import Proxy
from rpccluster.client.core.timeouts import CLIENTS, seconds_of
from rpccluster.client.sync.connection import Connection
from rpccluster.client.threads.expirer import Expirer
from rpccluster.client.threads.future import CallFuture, Resender
from rpccluster.client.threads.hubs import this_hub
from rpccluster.errors import CallTimeout, ConnectFailed, ConnectionLost
from rpccluster.protocol.outline import Bounds

__all__ = ["Calling", "SyncBatch"]

T = TypeVar("T")


class Calling(abc.ABC):
    """``timeout`` is how many seconds a call may take, None without limit; ``bounds`` are those of a message."""

    _dialect = DIALECT
    _addresses = 1

    def __init__(self, timeout: float | None, bounds: Bounds = BOUNDS) -> None:
        self.timeout = timeout
        #: The server's methods as attributes: ``client.proxy.sum(1, 2)``.
        self.proxy = Proxy(self.call)
        self._seconds = math.inf if timeout is None else timeout
        self._is_closed = False
        self._bounds = bounds
        self._resenders: dict[Any, Resender] = {}  # by hub
        self._expirers: dict[Any, Expirer] = {}  # likewise

    def call(self, method: str, *params: Any, timeout: float | None = CLIENTS, idempotent: bool = False) -> Any:
        """Call ``method`` and return its result.

        ``timeout`` in seconds, None without limit, else the constructor's. A call that certainly did not run
        because the connection ended is sent again; one that may have run only if it is ``idempotent``. Raises
        `RemoteError`, `CallTimeout`, `ConnectFailed`, `Lost`, `NotSent`, `ProtocolError`; for params that cannot be
        packed what msgpack raises (TypeError, ValueError, OverflowError), ValueError for a call above
        ``max_message_size`` or ``max_depth``, and nothing is sent.
        """
        deadline_at = self._deadline_at(timeout)
        return self._persist(
            lambda connection: connection.call(method, params, monotonic(), deadline_at),
            deadline_at,
            self._attempts(idempotent),
        )

    def call_async(
        self, method: str, *params: Any, timeout: float | None = CLIENTS, idempotent: bool = False
    ) -> Future[Any]:
        """Like `call`, but return a future at once; it ends within ``timeout``, whatever happens to the server.

        It never waits for a connection: without one the call is packed, and sent when there is one. Whatever `call`
        raises, but for params that cannot be packed, is the future's. Callbacks run in a thread of the client's; what
        one of them raises is logged.
        """
        deadline_at = self._deadline_at(timeout)
        attempts = self._attempts(idempotent)
        ready = self._ready()
        body = body_packer(self._bounds, self._dialect)(method, params) if ready is None else None

        def start(connection: Connection) -> None:
            if future.expirer is not None and not future.expirer.claim(future):
                return
            call = Call(deadline_at, future)
            future.connection = connection
            future.forget = lambda: connection.forget(call)
            connection.start(call, method, params, body)

        def send(future: CallFuture) -> None:
            try:
                self._persist(start, deadline_at, attempts)
            except (ConnectionLost, ConnectFailed) as error:
                future.end(error)

        def send_soon(future: CallFuture) -> None:
            nonlocal body
            if body is None and future.request is not None:  # the params may have changed since
                body = body_of(future.request)
            hub = this_hub()
            (self._expirers.get(hub) or self._expirers.setdefault(hub, Expirer())).watch(future, deadline_at)
            (self._resenders.get(hub) or self._resenders.setdefault(hub, Resender(self._addresses))).submit(future)

        future = CallFuture(attempts, send, send_soon)
        if ready is None:
            send_soon(future)
        else:
            try:
                start(ready)
            except ConnectionLost as error:
                may_go_on = attempts.may_go_on(error)  # not if it is this thread that cannot call now:
                send_soon(future) if may_go_on and not ready.is_open else future.end(attempts.error)
        return future

    def notify(self, method: str, *params: Any, timeout: float | None = CLIENTS) -> None:
        """Call ``method`` without waiting for it: nobody learns whether it ran, or what became of it.

        Returns when the kernel has taken the message. Raises like `call`.
        """
        deadline_at = self._deadline_at(timeout)
        self._persist(
            lambda connection: connection.notify(method, params, deadline_at), deadline_at, self._attempts(False)
        )

    def batch(self, *, timeout: float | None = CLIENTS, idempotent: bool = False) -> SyncBatch:
        """Gather calls in a ``with`` block; at its end they are sent in one write, and waited for.

        ``timeout`` is for all of them together. Raises at the end of the block if nothing could be sent
        (`ConnectFailed`, `NotSent`); what became of each call is in the call.
        """
        return SyncBatch(self, timeout, idempotent)

    @abc.abstractmethod
    def _ready(self) -> Connection | None:
        """What a call takes that cannot wait for a connection, as far as is known without asking."""

    def _close_expirers(self) -> None:
        for expirer in list(self._expirers.values()):
            expirer.close()

    def _leave_futures_to_the_parent(self) -> None:
        """In a forked child: those that wait for a connection are the parent's, and so are the threads."""
        for expirer in self._expirers.values():
            expirer.end_in_child()
        self._resenders, self._expirers = {}, {}

    def _attempts(self, idempotent: bool) -> Attempts:
        return Attempts(idempotent)

    def _deadline_at(self, timeout: float | None) -> float:
        return monotonic() + (self._seconds if timeout is CLIENTS else seconds_of(timeout, self._seconds))

    @abc.abstractmethod
    def _note_timeout(self, connection: Connection) -> None:
        """A call had no reply in time on ``connection``."""

    @abc.abstractmethod
    def _persist(self, attempt: Callable[[Connection], T], deadline_at: float, attempts: Attempts) -> T:
        """Attempt it on a connection, and on others as long as ``attempts`` allow. Raises what it ends with."""


class SyncBatch(Batch):
    """What `batch` gives; see there."""

    def __init__(self, caller: Calling, timeout: float | None, idempotent: bool) -> None:
        super().__init__(idempotent, caller._attempts(idempotent), caller._bounds)
        self._caller = caller
        self._timeout = timeout

    def __enter__(self) -> SyncBatch:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._calls:
            self._deadline_at = self._caller._deadline_at(self._timeout)
            try:
                self._caller._persist(self._send, self._deadline_at, self._attempts)
            except (ConnectionLost, ConnectFailed) as error:
                self._fail(error)

    def _send(self, connection: Connection) -> None:
        connection.call_all(*self._open(self._deadline_at))
        if any(isinstance(call.error, CallTimeout) for call in self._calls):
            self._caller._note_timeout(connection)
        self._check()
