"""The attempts at one call: where the next one is made, and how the call ends. Pure; both faces drive it.

A call that certainly did not run is sent again; one that may have run only if the caller says that it is idempotent. A
face asks `choose` where to connect, reports that it has `connected`, makes the call there, and passes its error to
`failed`. That returns the error to give up with, or None: then the face asks `choose` again.

    connecting ── connected() ───────────────→ calling
               ── failed(ConnectFailed) ─────→ connecting to another address, or give up when all have failed
               ── failed(NotSent) ───────────→ give up: the client is closed, or this thread cannot call now
               the same, if it follows the lead → connecting again after a pause, since no standby may listen
    calling    ── failed(NotSent) ───────────→ connecting, or give up after several attempts
               ── failed(Lost) ──────────────→ the same if the call is idempotent, or give up
               ── failed(CallTimeout) ───────→ give up
               ── failed(NotLeader) ─────────→ connecting to the leader, if the client follows it; else give up

With a `Lead` the next attempt may be one at a leader, and then it is not of the route. A leader that is not reached
costs no attempt, and the route is asked again, until the time of the call is over.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any, Protocol, Union

from rpccluster.client.core.lead import Lead
from rpccluster.errors import AddressError, CallTimeout, ConnectFailed, ConnectionLost, Lost, NotLeader

__all__ = ["DIRECT", "ENDINGS", "Attempts", "Direct", "Ending", "Place", "Route", "Unreached"]

#: An address and one of its connections, by their indexes.
Place = tuple[int, int]
#: What ends an attempt without a word from the server.
Unreached = Union[ConnectionLost, ConnectFailed]
#: What ends an attempt without an answer of the method, and is handed to `Attempts.failed`.
Ending = Union[ConnectionLost, ConnectFailed, CallTimeout, NotLeader]
#: The same, to be caught.
ENDINGS = (ConnectionLost, ConnectFailed, CallTimeout, NotLeader)

_NOWHERE = -1  # there is no address to try
_MORE_ATTEMPTS = 2  # than there are connections: each of them may have ended while it was idle


class Route(Protocol):
    """Chooses the places of attempts, and learns from their outcomes for later calls."""

    #: What is known of the lead; None if the client does not follow it.
    lead: Lead[Any] | None

    @property
    def addresses(self) -> int:
        """How many addresses there are."""

    @property
    def connections(self) -> int:
        """How many connections there may be."""

    def has_another(self, tried: Container[int]) -> bool:
        """Return whether there is an address that was not ``tried``."""

    def choose(self, tried: Container[int]) -> Place:
        """Return the place of the next attempt, at an address that was not ``tried``.

        Raises `ConnectFailed` if there is none.
        """

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

    def __init__(self, lead: Lead[Any] | None = None) -> None:
        self.lead = lead

    def has_another(self, tried: Container[int]) -> bool:
        """Return whether the only address was not tried."""
        return 0 not in tried

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
    """The attempts at one call of ``method``, along ``route``."""

    __slots__ = (
        "_address",
        "_error",
        "_idempotent",
        "_is_connected",
        "_left",
        "_method",
        "_route",
        "_unreached",
        "again_at",
        "leader",
        "refusal",
    )

    def __init__(self, route: Route, idempotent: bool, method: str | None = None) -> None:
        #: Where the next attempt is made, if it is one at a leader.
        self.leader = None if route.lead is None or method is None else route.lead.begins_at(method)
        #: When the next attempt is made, by the clock of the lead.
        self.again_at = 0.0
        #: The last answer of a cluster that does not lead.
        self.refusal: NotLeader | None = None
        self._method = method
        self._route = route
        self._idempotent = idempotent
        self._left = _MORE_ATTEMPTS + route.connections
        self._error: Unreached | None = None
        self._unreached: dict[int, ConnectFailed] = {}
        self._address = _NOWHERE
        self._is_connected = False

    @property
    def error(self) -> Unreached | None:
        """The error for the caller; None before an attempt has failed. After a lost one the call may have run."""
        return self._error

    @property
    def is_led(self) -> bool:
        """Whether the next attempt is one at a leader, or waits until there may be one."""
        return self.leader is not None or self.again_at > 0

    def choose_leader(self) -> str | None:
        """Return the leader at which to connect and call next, once it is time; None if `choose` is to be asked."""
        self._is_connected = False
        self.again_at = 0.0
        return self.leader

    @property
    def follows(self) -> bool:
        """Whether a call that a cluster refuses, since it does not lead, is made again."""
        return self._route.lead is not None

    def choose(self) -> Place:
        """Return the place at which to connect and call next."""
        self._is_connected, self._address = False, _NOWHERE
        place = self._route.choose(self._unreached)
        self._address = place[0]
        return place

    def connected(self) -> None:
        """Note that there is a connection to the chosen place, for the call."""
        self._is_connected = True
        if self.leader is None:
            self._route.reached(self._address)

    def started(self, address: int) -> None:
        """Note that the call uses an open connection of ``address``."""
        self._address = address
        self.connected()

    def timed_out(self) -> None:
        """Note that the call had no reply in time."""
        if self.leader is not None:
            self._lose_the_leader()
        elif self._is_connected:
            self._route.timed_out(self._address)

    def failed(self, error: Ending, is_late: bool) -> Ending | None:
        """Note how the attempt ended. Returns the error to give up with, or None if there may be another attempt.

        If the call's time is over (``is_late``), no other address is tried.
        """
        if isinstance(error, CallTimeout):
            self.timed_out()
            return error
        if isinstance(error, NotLeader):
            return self._refused(error, is_late)
        if self.leader is not None:
            return self._failed_at_leader(error, is_late)
        if self._is_connected:
            self._route.ended(self._address)
        elif isinstance(error, ConnectFailed):
            if self._address != _NOWHERE:
                self._unreached[self._address] = error
                self._route.failed(self._address)
            if self._route.has_another(self._unreached) and not is_late:
                return None
            if self._route.lead is not None and not is_late:
                self._unreached.clear()
                self.again_at = self._route.lead.again_at()
                return None
            if len(self._unreached) > 1:
                error = ConnectFailed("; ".join(map(str, self._unreached.values())))
        return None if self.may_go_on(error) else self._error

    def _refused(self, error: NotLeader, is_late: bool) -> Ending | None:
        """Choose where the call goes on, since it did not run: at the leader, or after a pause where it began."""
        lead = self._route.lead
        if lead is None or is_late:
            return error
        if self._method is not None:
            lead.needs(self._method)
        try:
            self.leader = lead.named(error.address)
        except AddressError:
            return error
        is_first, self.refusal = self.refusal is None, error
        self._unreached.clear()  # what could not be reached may lead by the next time
        self.again_at = 0.0 if is_first and self.leader is not None else lead.again_at()
        return None

    def _failed_at_leader(self, error: Unreached, is_late: bool) -> Ending | None:
        if not isinstance(error, ConnectFailed):
            return None if self.may_go_on(error) else self._error
        if is_late:
            return self.refusal or error
        self._lose_the_leader()
        return None

    def _lose_the_leader(self) -> None:
        assert self._route.lead is not None and self.leader is not None
        self._route.lead.lost(self.leader)
        self.leader, self.again_at = None, self._route.lead.again_at()

    def may_go_on(self, error: Unreached) -> bool:
        """Note how the attempt ended. Returns whether there may be another one."""
        if self._error is None or (isinstance(error, Lost) and not isinstance(self._error, Lost)):
            self._error = error
        self._left -= 1
        if self._left <= 0 or isinstance(error, ConnectFailed):
            return False
        return self._idempotent or not isinstance(error, Lost)
