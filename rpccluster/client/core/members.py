"""The clients of a pool, and what is known of their addresses: the route of its calls, the numbers of `Pool.stats`.

Both faces use it. `Choice` decides; it is asked here, under a lock and by a clock that the face passes in.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Generic, Protocol, TypeVar

from rpccluster.client.core.attempts import Place
from rpccluster.client.core.choice import Choice, Loads
from rpccluster.client.core.lead import Lead
from rpccluster.errors import ConnectFailed

__all__ = ["Member", "Members"]


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


M = TypeVar("M", bound=Member)


class Members(Generic[M]):
    """Holds ``connections`` clients of each address, which ``make`` makes. Raises ValueError if there are none."""

    def __init__(
        self,
        addresses: str | Iterable[str],
        connections: int,
        make: Callable[[str], M],
        lock: AbstractContextManager[Any],
        clock: Callable[[], float],
        lead: Lead[M] | None = None,
    ) -> None:
        names = [addresses] if isinstance(addresses, str) else addresses
        #: By address.
        self.clients = [[make(address) for _ in range(connections)] for address in names]
        self.addresses = len(self.clients)
        if not self.clients or connections < 1:
            raise ValueError(f"found {self.addresses} addresses and {connections} connections, expected some")
        self.connections = self.addresses * connections
        self._lock = lock
        #: What the pauses of addresses go by.
        self.clock = clock
        self.lead = lead
        self._choice = Choice(self.addresses)
        #: Addresses that take no call before they have answered a ping.
        self.suspects = self._choice.suspects

    def __str__(self) -> str:
        return " ".join(str(clients[0].address) for clients in self.clients)

    def __iter__(self) -> Iterator[M]:
        return (client for clients in self.clients for client in clients)

    @property
    def pending(self) -> int:
        """The number of calls that wait for their reply."""
        return sum(client.pending for client in self)

    def at(self, place: Place) -> M:
        """Return the client at a place."""
        return self.clients[place[0]][place[1]]

    # -- as a route ---------------------------------------------------------------------------------------------

    def choose(self, tried: Container[int] = ()) -> Place:
        """See `Route`."""
        loads = self.loads()
        with self._lock:
            chosen = self._choice.choose(loads, self.clock(), tried)
        assert chosen is not None, "every address was tried"
        return chosen

    def look(self) -> Place:
        """Return what `choose` would choose, without taking a turn."""
        loads = self.loads()
        with self._lock:
            chosen = self._choice.look(loads, self.clock())
        assert chosen is not None, "there is an address"
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
        return [[client.pending if client.is_connected else None for client in clients] for clients in self.clients]

    def after_fork(self, lock: AbstractContextManager[Any]) -> None:
        """Replace the lock, in a forked child: a thread that does not exist here may hold the old one."""
        self._lock = lock

    # -- for operators ------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Return the numbers of `Pool.stats` that concern the addresses."""
        rows = [self._stats_of(address) for address in range(self.addresses)]
        return {
            **{name: sum(row[name] for row in rows) for name in ("connections", "pending", "failures")},
            "set_aside": sum(row["set_aside_seconds"] > 0 for row in rows),
            "addresses": {str(clients[0].address): row for clients, row in zip(self.clients, rows)},
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
            str(errors[number]) if number in errors else f"{clients[0].address}: no answer"
            for number, clients in enumerate(self.clients)
        ]
        return ConnectFailed(f"no server answered within {seconds:g} seconds: {'; '.join(reasons)}")
