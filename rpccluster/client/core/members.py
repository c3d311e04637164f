"""The clients of a pool, and what is known of their addresses: the route of its calls, the numbers of `Pool.stats`.

Both faces use it. `Choice` decides; it is asked here, under a lock and by a clock that the face passes in. Addresses
may come and go: one keeps its index while it is a member, and later another one may get it. A call that was just about
to use the former one then uses the new one, or finds a client that is set aside, and connects.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Generic, Protocol, TypeVar

from rpccluster.client.core.attempts import Place
from rpccluster.client.core.choice import Choice, Loads
from rpccluster.client.core.lead import Lead
from rpccluster.errors import ConnectFailed

__all__ = ["Member", "Members"]

_LEAVING_SECONDS = 1.0  # in which a call that has found a former member's client begins there


class Member(Protocol):
    """A client with one connection, of either face."""

    @property
    def address(self) -> Any:
        """The address to which it connects."""

    @property
    def pending(self) -> int:
        """The number of calls that wait for their reply."""

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""

    def set_aside(self) -> None:
        """Take no more calls on the present connection."""


M = TypeVar("M", bound=Member)


class Members(Generic[M]):
    """Holds ``connections`` clients of each address, which ``make`` makes. Raises ValueError if there are none.

    Without ``addresses`` there are none until `replace` has brought some.
    """

    def __init__(
        self,
        addresses: str | Iterable[str] | None,
        connections: int,
        make: Callable[[str], M],
        lock: AbstractContextManager[Any],
        clock: Callable[[], float],
        lead: Lead[M] | None = None,
    ) -> None:
        names = [addresses] if isinstance(addresses, str) else list(addresses or ())
        if connections < 1 or (addresses is not None and not names):
            raise ValueError(f"found {len(names)} addresses and {connections} connections, expected some")
        self._make = make
        self._connections = connections
        #: By the index of the address. Those of a former member stay until another one takes its place.
        self.clients = [self._made(address) for address in names]
        self._names: list[str | None] = [*names]  # None where a former member was
        self._leaving: list[tuple[M, float]] = []  # the clients of former members, and until when they stay
        self._lock = lock
        #: What the pauses of addresses go by.
        self.clock = clock
        self.lead = lead
        self._choice = Choice(len(self.clients))
        #: Addresses that take no call before they have answered a ping.
        self.suspects = self._choice.suspects

    def __str__(self) -> str:
        return " ".join(str(self.clients[index][0].address) for index in self.indexes)

    def __iter__(self) -> Iterator[M]:
        leaving = [client for client, _ in self._leaving]
        return itertools.chain(leaving, *(self.clients[index] for index in self.indexes))

    @property
    def indexes(self) -> list[int]:
        """The indexes of the present addresses."""
        return [index for index, name in enumerate(self._names) if name is not None]

    @property
    def addresses(self) -> int:
        """How many addresses there are."""
        return len(self._names) - self._names.count(None)

    @property
    def connections(self) -> int:
        """How many connections there may be."""
        return self.addresses * self._connections

    @property
    def pending(self) -> int:
        """The number of calls that wait for their reply."""
        return sum(client.pending for client in self)

    def at(self, place: Place) -> M:
        """Return the client at a place."""
        return self.clients[place[0]][place[1]]

    # -- members that come and go -------------------------------------------------------------------------------

    def replace(self, addresses: Iterable[str]) -> None:
        """Have these ``addresses``. Calls under way at one that has gone go on, and later ones go elsewhere."""
        wanted = dict.fromkeys(addresses)
        new = {address: self._made(address) for address in wanted if address not in self._names}
        with self._lock:
            for index, name in enumerate(self._names):
                if name is not None and name not in wanted:
                    self._names[index] = None
                    self._leaving += [(client, self.clock() + _LEAVING_SECONDS) for client in self.clients[index]]
            for address, clients in new.items():
                self._put(address, clients)
        for client, _ in self._leaving:
            client.set_aside()

    def drained(self) -> list[M]:
        """Return the clients of former members at which no call is pending any more, to be closed; once."""
        if not self._leaving:
            return []
        now = self.clock()
        with self._lock:
            drained = [client for client, until in self._leaving if until <= now and not client.pending]
            self._leaving = [each for each in self._leaving if each[0] not in drained]
        return drained

    def _put(self, address: str, clients: list[M]) -> None:
        index = self._names.index(None) if None in self._names else len(self._names)
        if index == len(self._names):
            self._names.append(None)
            self.clients.append([])
        self._choice.take_in(index)
        self.clients[index] = clients
        self._names[index] = address

    def _made(self, address: str) -> list[M]:
        return [self._make(address) for _ in range(self._connections)]

    # -- as a route ---------------------------------------------------------------------------------------------

    def has_another(self, tried: Container[int]) -> bool:
        """See `Route`."""
        return any(index not in tried for index in self.indexes)

    def choose(self, tried: Container[int] = ()) -> Place:
        """See `Route`."""
        loads = self.loads()
        with self._lock:
            chosen = self._choice.choose(loads, self.clock(), tried)
        if chosen is None:
            raise ConnectFailed("there is no other server to try")
        return chosen

    def look(self) -> Place:
        """Return what `choose` would choose, without taking a turn."""
        loads = self.loads()
        with self._lock:
            chosen = self._choice.look(loads, self.clock())
        if chosen is None:
            raise ConnectFailed("there is no server")
        return chosen

    def take_turn(self, address: int) -> None:
        """Note that a call uses an open connection of an address."""
        with self._lock:
            self._choice.take_turn(address)

    def reached(self, address: int) -> None:
        """Note that a connection to an address was found; see `Route.reached`."""
        if self._choice.is_doubtful(address):
            with self._lock:
                self._choice.reached(address)

    def failed(self, address: int) -> None:
        """Note that no connection was made; see `Route.failed`."""
        with self._lock:
            self._choice.failed(address, self.clock())

    def ended(self, address: int) -> None:
        """Note that a connection ended during a call; see `Route.ended`."""
        with self._lock:
            self._choice.ended(address, self.clock())

    def timed_out(self, address: int) -> None:
        """Note that a call had no reply in time; see `Route.timed_out`."""
        with self._lock:
            self._choice.timed_out(address, self.clock())

    # -- pings --------------------------------------------------------------------------------------------------

    def to_ping(self) -> list[int]:
        """Return the addresses that must answer a ping now."""
        with self._lock:
            return self._choice.to_ping(self.clock())

    def pinged(self, address: int, is_alive: bool) -> None:
        """Note how the ping of an address ended."""
        with self._lock:
            self._choice.pinged(address, is_alive, self.clock())

    def pingable(self, address: int) -> list[M]:
        """Return the clients that ping an address: the connected ones, or a new connection."""
        clients = self.clients[address]
        return [client for client in clients if client.is_connected] or clients[:1]

    # -- and what it goes by ------------------------------------------------------------------------------------

    def loads(self) -> Loads:
        """Return the pending calls of each connection, by address."""
        return [
            () if name is None else [client.pending if client.is_connected else None for client in clients]
            for name, clients in zip(self._names, self.clients)
        ]

    def after_fork(self, lock: AbstractContextManager[Any]) -> None:
        """Replace the lock, in a forked child: a thread that does not exist here may hold the old one."""
        self._lock = lock

    # -- for operators ------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Return the numbers of `Pool.stats` that concern the addresses."""
        indexes = self.indexes
        rows = [self._stats_of(index) for index in indexes]
        return {
            **{name: sum(row[name] for row in rows) for name in ("connections", "pending", "failures")},
            "set_aside": sum(row["set_aside_seconds"] > 0 for row in rows),
            "addresses": {str(self.clients[index][0].address): row for index, row in zip(indexes, rows)},
        }

    def _stats_of(self, address: int) -> dict[str, float]:
        clients = self.clients[address]
        with self._lock:
            failures = self._choice.times_set_aside[address]
            aside = self._choice.aside_seconds(address, self.clock())
        return {
            "connections": sum(client.is_connected for client in clients),
            "pending": sum(client.pending for client in clients),
            "failures": failures,
            "set_aside_seconds": aside,
        }

    def unserved(self, errors: Mapping[int, BaseException | None], seconds: float) -> ConnectFailed:
        """Make the error of `Pool.wait` if no address has answered; ``errors`` are the last ones, by address."""
        reasons = [
            str(errors[index]) if index in errors else f"{self.clients[index][0].address}: no answer"
            for index in self.indexes
        ]
        return ConnectFailed(f"no server answered within {seconds:g} seconds: {'; '.join(reasons)}")
