"""What a client that follows the lead knows of it, and when it asks again. Pure; both faces use it.

A cluster that does not lead answers a leader-only method with ``NotLeader: ADDRESS``. The call did not run, so it is
made again where the lead is said to be. Without an address, and when clusters send a call round in circles, there is a
pause first; it is the client's, so that all its calls ask at the same moment, however many wait. A method that was once
answered so goes to the known leader at once. A leader that cannot be reached is forgotten, and for a while nobody is
believed that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

__all__ = ["Lead", "Led"]

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.4
_DISBELIEF_SECONDS = 1.0  # after which a leader that could not be reached may be tried again
_MOST_METHODS = 1000


class Led(Protocol):
    """A client of one address, of either face."""

    @property
    def pending(self) -> int:
        """The number of calls that wait for their reply."""

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""


C = TypeVar("C", bound=Led)


class Lead(Generic[C]):
    """The leader that was named last, and the clients, which ``make`` makes, of those that were named before."""

    def __init__(self, make: Callable[[str], C], clock: Callable[[], float]) -> None:
        #: Where the lead is, as far as is known.
        self.address: str | None = None
        self._make = make
        self._clock = clock
        self._clients: dict[str, C] = {}
        self._methods: set[str] = set()
        self._pause = _FIRST_PAUSE_SECONDS
        self._again_at = 0.0
        self._unreached: str | None = None
        self._unreached_until = 0.0

    def __iter__(self) -> Iterator[C]:
        return iter(list(self._clients.values()))

    @property
    def pending(self) -> int:
        """The number of calls at leaders that wait for their reply."""
        return sum(client.pending for client in self)

    def begins_at(self, method: str) -> str | None:
        """Return the leader at which a call of ``method`` begins; None if it begins where any other call does."""
        return self.address if method in self._methods else None

    def needs(self, method: str) -> None:
        """Note that ``method`` was answered NotLeader."""
        if len(self._methods) >= _MOST_METHODS:
            self._methods.clear()
        self._methods.add(method)

    def named(self, address: str | None) -> str | None:
        """Note that ``address`` is said to lead. Returns it if a call may go there, else None.

        ``address`` is None if nobody leads. Raises `AddressError` for what is no address.
        """
        if address is None or (address == self._unreached and self._clock() < self._unreached_until):
            self.address = None
        else:
            self.client(address)
            self.address = address
            self._pause = _FIRST_PAUSE_SECONDS
        return self.address

    def lost(self, address: str) -> None:
        """Note that the leader at ``address`` was not reached, or did not answer in time."""
        self._unreached, self._unreached_until = address, self._clock() + _DISBELIEF_SECONDS
        if self.address == address:
            self.address = None

    def again_at(self) -> float:
        """Return when a call that has found no leader asks again: all that ask before this moment ask then."""
        now = self._clock()
        if now >= self._again_at:
            self._again_at = now + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
        return self._again_at

    def client(self, address: str) -> C:
        """Return the client of an address."""
        client = self._clients.get(address)
        if client is None:
            made = self._make(address)
            for other, known in list(self._clients.items()):  # those that have ended need not be kept
                if not known.is_connected and not known.pending:
                    self._clients.pop(other, None)
            client = self._clients.setdefault(address, made)
        return client
