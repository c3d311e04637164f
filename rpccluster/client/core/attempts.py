"""The attempts at one call: where the next one is made, and how the call ends. Pure; both faces drive it.

A call that certainly did not run is sent again; one that may have run only if the caller says that it is idempotent. A
face asks `choose` where to connect, reports that it has `connected`, makes the call there, and passes its error to
`failed`. That returns the error to give up with, or None: then the face asks `choose` again.

    connecting ── connected() ───────────────→ calling
               ── failed(ConnectFailed) ─────→ connecting to another address, or give up when all have failed
               ── failed(NotSent) ───────────→ give up: the client is closed, or this thread cannot call now
    calling    ── failed(NotSent) ───────────→ connecting, or give up after several attempts
               ── failed(Lost) ──────────────→ the same if the call is idempotent, or give up
               ── failed(CallTimeout) ───────→ give up
"""

from __future__ import annotations

from collections.abc import Container
from typing import Protocol, Union

from rpccluster.errors import CallTimeout, ConnectFailed, ConnectionLost, Lost

__all__ = ["DIRECT", "ENDINGS", "Attempts", "Direct", "Ending", "Place", "Route", "Unreached"]

#: An address and one of its connections, by their indexes.
Place = tuple[int, int]
#: What ends an attempt without a word from the server.
Unreached = Union[ConnectionLost, ConnectFailed]
#: What ends an attempt otherwise than with a reply, and is handed to `Attempts.failed`.
Ending = Union[ConnectionLost, ConnectFailed, CallTimeout]
#: The same, to be caught.
ENDINGS = (ConnectionLost, ConnectFailed, CallTimeout)

_MORE_ATTEMPTS = 2  # than there are connections: each of them may have ended while it was idle


class Route(Protocol):
    """Chooses the places of attempts, and learns from their outcomes for later calls."""

    addresses: int
    connections: int

    def choose(self, tried: Container[int]) -> Place:
        """Return the place of the next attempt, at an address that was not ``tried``; there is one."""

    def reached(self, address: int) -> None:
        """Note that a connection was made."""

    def failed(self, address: int) -> None:
        """Note that no connection was made."""

    def ended(self, address: int) -> None:
        """Note that a connection ended during a call."""

    def timed_out(self, address: int) -> None:
        """Note that a call had no reply in time."""


class Direct:
    """The route of a client with one address and one connection; it has nothing to learn."""

    addresses = 1
    connections = 1

    def choose(self, tried: Container[int]) -> Place:
        """Return the only place."""
        return 0, 0

    def reached(self, address: int) -> None:
        """Do nothing; see `Route.reached`."""

    def failed(self, address: int) -> None:
        """Do nothing; see `Route.failed`."""

    ended = timed_out = failed


DIRECT = Direct()


class Attempts:
    """The attempts at one call, along ``route``."""

    __slots__ = ("_address", "_error", "_idempotent", "_is_connected", "_left", "_route", "_unreached")

    def __init__(self, route: Route, idempotent: bool) -> None:
        self._route = route
        self._idempotent = idempotent
        self._left = _MORE_ATTEMPTS + route.connections
        self._error: Unreached | None = None
        self._unreached: dict[int, ConnectFailed] = {}
        self._address = 0
        self._is_connected = False

    @property
    def error(self) -> Unreached | None:
        """The error for the caller; None before an attempt has failed. After a lost one the call may have run."""
        return self._error

    def choose(self) -> Place:
        """Return the place at which to connect and call next."""
        self._is_connected = False
        place = self._route.choose(self._unreached)
        self._address = place[0]
        return place

    def connected(self) -> None:
        """Note that there is a connection to the chosen place, for the call."""
        self._is_connected = True
        self._route.reached(self._address)

    def started(self, address: int) -> None:
        """Note that the call uses an open connection of ``address``."""
        self._address = address
        self.connected()

    def timed_out(self) -> None:
        """Note that the call had no reply in time."""
        if self._is_connected:
            self._route.timed_out(self._address)

    def failed(self, error: Ending, is_late: bool) -> Ending | None:
        """Note how the attempt ended. Returns the error to give up with, or None if there may be another attempt.

        If the call's time is over (``is_late``), no other address is tried.
        """
        if isinstance(error, CallTimeout):
            self.timed_out()
            return error
        if self._is_connected:
            self._route.ended(self._address)
        elif isinstance(error, ConnectFailed):
            self._unreached[self._address] = error
            self._route.failed(self._address)
            if len(self._unreached) < self._route.addresses and not is_late:
                return None
            if len(self._unreached) > 1:
                error = ConnectFailed("; ".join(map(str, self._unreached.values())))
        return None if self.may_go_on(error) else self._error

    def may_go_on(self, error: Unreached) -> bool:
        """Note how the attempt ended. Returns whether there may be another one."""
        if self._error is None or (isinstance(error, Lost) and not isinstance(self._error, Lost)):
            self._error = error
        self._left -= 1
        if self._left <= 0 or isinstance(error, ConnectFailed):
            return False
        return self._idempotent or not isinstance(error, Lost)
