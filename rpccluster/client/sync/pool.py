"""Several addresses, with several connections to each, behind the names of one client.

Owns a client for each connection; `rpccluster.client.core.choice` decides which one a call uses. Threads may share it.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable, Iterable
from concurrent import futures
from concurrent.futures import Future
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from rpccluster.client.core.attempts import Attempts
from rpccluster.client.core.choice import AGAIN_SECONDS, PING_SECONDS
from rpccluster.client.core.exchange.outgoing import BOUNDS
from rpccluster.client.core.lead import Lead
from rpccluster.client.core.members import Members
from rpccluster.client.core.timeouts import CLIENTS
from rpccluster.client.core.waiting import Waiting
from rpccluster.client.registry.registry import Registry, is_registry
from rpccluster.client.sync.calling import Calling
from rpccluster.client.sync.client import Client
from rpccluster.client.sync.connection import Connection
from rpccluster.client.threads.forks import MARK, let_go_after, notice_fork
from rpccluster.errors import ConnectFailed, NotSent, RemoteError, TooManyWaiting
from rpccluster.protocol.challenge import AuthKey
from rpccluster.protocol.outline import Bounds

__all__ = ["Pool"]

T = TypeVar("T")

_new_lock = _thread.RLock  # a native lock, even where gevent has patched; no thread waits while it holds the lock


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
        lock = _new_lock()
        self._waiting: Waiting = Waiting(max_waiting, lock)
        lead = Lead(make, monotonic) if follow_leader else None
        self._registry = Registry(addresses) if isinstance(addresses, str) and is_registry(addresses) else None
        self._listed: tuple[str, ...] | None = None  # by the registry, when it was last asked
        self._taking = _new_lock()
        known = addresses if self._registry is None else None
        self._members = Members(known, connections, make, lock, monotonic, lead)
        super().__init__(timeout, Bounds(max_message_size, max_depth), self._members)
        let_go_after(self)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._registry or self._members}>"

    @property
    def pending(self) -> int:
        """The number of calls that wait for their reply."""
        return self._members.pending + (0 if self._members.lead is None else self._members.lead.pending)

    def close(self) -> None:
        """Close every connection. Pending calls end with `Lost` or `NotSent`, later ones with `NotSent`."""
        self._is_closed = True
        self._deferred.close()
        if self._registry is not None:
            self._registry.close()
        for client in self._members:
            client.close()
        self._close_leaders()

    def call_async(
        self, method: str, *params: Any, timeout: float | None = CLIENTS, idempotent: bool = False
    ) -> Future[Any]:
        """Return a future of the call, as `Calling.call_async` does."""
        attempts = Attempts(self._route, idempotent, method)
        waiting = self._waiting
        try:
            waiting.enter((attempts,))
            return self._start(method, params, self._deadline_at(timeout), attempts)
        except TooManyWaiting as error:
            refused: Future[Any] = Future()
            refused.set_exception(error)
            return refused
        except BaseException:
            waiting.leave((attempts,))
            raise

    def wait(self, seconds: float = 30) -> None:
        """Return as soon as one of the servers answers an ``rpc.ping``.

        All addresses are asked at once, and again after an error. Raises `ConnectFailed` if none answers within
        ``seconds``, `NotSent` if the pool is closed.
        """
        members = self._members
        errors: dict[int, BaseException | None] = {}
        pings: dict[Future[Any], int] = {}
        deadline_at = monotonic() + seconds
        try:
            while not self._is_closed:
                left = max(0.0, deadline_at - monotonic())
                self._has_members()
                for address in set(members.indexes).difference(pings.values()):
                    pings[members.pingable(address)[0].call_async("rpc.ping", timeout=None)] = address
                for ping in futures.wait(pings, left, futures.FIRST_COMPLETED).done:
                    address = pings.pop(ping)
                    if _is_answered(ping):
                        return members.pinged(address, True)
                    errors[address] = ping.exception()
                left = deadline_at - monotonic()
                if left <= 0:
                    raise members.unserved(errors, seconds)
                threading.Event().wait(min(left, AGAIN_SECONDS))
        finally:
            for ping in pings:
                ping.cancel()
        raise NotSent("the pool is closed")

    def stats(self) -> dict[str, Any]:
        """Return the present numbers, for an operator.

        In all: ``connections`` (open), ``pending`` (calls that wait for their reply), ``waiting`` (these, and calls
        that wait for a connection), ``refused`` (because of ``max_waiting``), ``failures`` (how often an address was
        set aside), and ``set_aside`` (how many addresses are). ``addresses`` has for each address its ``connections``,
        ``pending`` and ``failures``, and ``set_aside_seconds``, the time since it was set aside, or 0.
        """
        return {"waiting": self._waiting.count, "refused": self._waiting.refused, **self._members.stats()}

    def _find(self, attempts: Attempts, deadline_at: float) -> Connection:
        if not MARK[0]:
            notice_fork()
        if self._registry is not None:
            self._wait_for_members(self._registry, deadline_at)
        if self._members.suspects:
            self._ping_suspects()
        address, number = attempts.choose()
        return self._members.clients[address][number]._connected(deadline_at)

    def _ready(self, attempts: Attempts) -> Connection | None:
        if not MARK[0]:
            notice_fork()
        members = self._members
        if not self._has_members():
            return None
        if members.suspects:
            self._ping_suspects()
        place = members.look()
        connection = members.at(place)._open_connection()
        if connection is not None:
            members.take_turn(place[0])
            attempts.started(place[0])
        return connection

    def _has_members(self) -> bool:
        """Take the registry's present list, and return whether there are servers at all."""
        registry = self._registry
        if registry is None:
            return True
        registry.follow()
        if registry.addresses is not self._listed and self._taking.acquire(False):
            try:
                self._listed = listed = registry.addresses
                self._members.replace(listed or ())
            finally:
                self._taking.release()
        for client in self._members.drained():
            client.close()
        return self._members.addresses > 0

    def _wait_for_members(self, registry: Registry, deadline_at: float) -> None:
        while not self._has_members() and not self._is_closed:
            left = deadline_at - monotonic()
            if left <= 0:
                raise ConnectFailed(f"{registry}: {registry.why_empty}")
            threading.Event().wait(min(left, AGAIN_SECONDS))

    def _ping_suspects(self) -> None:
        members = self._members
        for address in members.to_ping():
            _ping(members.pingable(address), partial(members.pinged, address))

    def _after_fork(self) -> None:
        lock = _new_lock()
        self._members.after_fork(lock)
        self._taking = _new_lock()
        if self._registry is not None:
            self._registry.after_fork()
        self._waiting = Waiting(self._waiting.most, lock)
        self._deferred.end_in_child()


def _is_answered(ping: Future[Any]) -> bool:
    """Return whether a server has answered, even if only that it knows no such method."""
    return ping.exception() is None or isinstance(ping.exception(), RemoteError)


def _ping(clients: list[Client], tell: Callable[[bool], None]) -> None:
    """Ping over each connection of an address, or over a new one, and ``tell`` whether any has answered.

    Connections that do not answer are set aside, since a connection of that age may have lost its way to the server.
    """
    answers: list[bool] = []

    def note(client: Client, future: Any) -> None:
        is_alive = _is_answered(future)
        if not is_alive:
            client.set_aside()
        answers.append(is_alive)
        if len(answers) == len(clients):
            tell(any(answers))

    for client in clients:
        client.call_async("rpc.ping", timeout=PING_SECONDS).add_done_callback(partial(note, client))
