"""Decides which address of a pool, and which connection to it, a call uses. Pure: times and loads are passed in.

The address with the fewest pending calls wins; turns break ties. An address that could not be reached, or whose
connection ended, is set aside, longer each time. While a call connects to an address without a connection, other calls
avoid it. An address that left a call without a reply is a suspect: it is set aside, too, and gets no call before it has
answered a ping. If all addresses are set aside, the call tries the one whose rest ends first.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Optional

__all__ = ["AGAIN_SECONDS", "PING_SECONDS", "Choice", "Loads"]

#: For each address, for each of its connections: how many calls are pending there, None if it is not connected. An
#: address that is not to be chosen has no connections.
Loads = Sequence[Sequence[Optional[int]]]

_FIRST_REST_SECONDS = 0.1
_LONGEST_REST_SECONDS = 10.0
_TRIAL_SECONDS = 10.0  # after which one that is being connected to, and has not been reached, is tried by another call
#: How long a suspect may take to answer a ping.
PING_SECONDS = 1.0
#: `Pool.wait` asks an address again so many seconds after an error.
AGAIN_SECONDS = 0.05


class Choice:
    """Remembers whose turn it is, and until when each of ``addresses`` is set aside."""

    def __init__(self, addresses: int) -> None:
        self._failures = [0] * addresses  # in a row
        #: How often each address has been set aside.
        self.times_set_aside = [0] * addresses
        self._aside_since: list[float | None] = [None] * addresses
        self._rests_until = [0.0] * addresses
        self._trials: dict[int, float] = {}  # those that are being connected to, and until when that is believed
        self._turn = 0
        #: Addresses that take no call before they have answered a ping.
        self.suspects: set[int] = set()

    def take_in(self, address: int) -> None:
        """Begin anew with an address: a new one, or another one of this index."""
        if address == len(self._failures):
            self._failures.append(0)
            self.times_set_aside.append(0)
            self._aside_since.append(None)
            self._rests_until.append(0.0)
        self.suspects.discard(address)
        self._trials.pop(address, None)
        self.times_set_aside[address] = 0
        self._take_back(address)

    def choose(self, loads: Loads, now: float, tried: Container[int] = ()) -> tuple[int, int] | None:
        """Return an address that was not ``tried`` and a connection of it, as indexes; None if all were tried."""
        chosen = self.look(loads, now, tried)
        if chosen is not None:
            address, connection = chosen
            self.take_turn(address)
            if loads[address][connection] is None:
                self._trials[address] = now + _TRIAL_SECONDS
        return chosen

    def look(self, loads: Loads, now: float, tried: Container[int] = ()) -> tuple[int, int] | None:
        """Return what `choose` would choose, without taking a turn."""
        left = [index for index, connections in enumerate(loads) if connections and index not in tried]
        if not left:
            return None
        awake = [index for index in left if self._rests_until[index] <= now and index not in self.suspects]
        if self._trials and awake:
            awake = [index for index in awake if not self._is_on_trial(index, loads, now)] or awake
        address = self._least_loaded(awake, loads) if awake else min(left, key=self._rests_until.__getitem__)
        return address, _connection(loads[address])

    def take_turn(self, address: int) -> None:
        """Note that a call uses an open connection of the address: the next turn is that of the one behind it."""
        self._turn = address + 1

    def _least_loaded(self, awake: list[int], loads: Loads) -> int:
        count = len(loads)
        return min(awake, key=lambda index: (sum(load or 0 for load in loads[index]), (index - self._turn) % count))

    def _is_on_trial(self, address: int, loads: Loads, now: float) -> bool:
        return self._trials.get(address, 0.0) > now and all(load is None for load in loads[address])

    def failed(self, address: int, now: float) -> None:
        """Note that the address could not be reached: it is set aside from ``now`` on."""
        self._trials.pop(address, None)
        rest = min(_FIRST_REST_SECONDS * 2 ** min(self._failures[address], 10), _LONGEST_REST_SECONDS)
        self._failures[address] += 1
        self.times_set_aside[address] += 1
        if self._aside_since[address] is None:
            self._aside_since[address] = now
        self._rests_until[address] = now + rest

    def ended(self, address: int, now: float) -> None:
        """Note that a connection to the address has ended: it is set aside once for all its calls."""
        if self._rests_until[address] <= now:
            self.failed(address, now)

    def timed_out(self, address: int, now: float) -> None:
        """Note that a call had no reply in time: the address is a suspect, set aside once for all its calls."""
        if address not in self.suspects:
            self.suspects.add(address)
            self.ended(address, now)

    def to_ping(self, now: float) -> list[int]:
        """Return the suspects whose rest is over; each is set aside until its ping must have been answered."""
        rested = [address for address in self.suspects if self._rests_until[address] <= now]
        for address in rested:
            self._rests_until[address] = now + 2 * PING_SECONDS
        return rested

    def pinged(self, address: int, is_alive: bool, now: float) -> None:
        """Note how the ping of an address ended."""
        if is_alive:
            self.suspects.discard(address)
            self._take_back(address)
        else:
            self.failed(address, now)

    def is_doubtful(self, address: int) -> bool:
        """Return whether a connection to ``address`` would be news: on trial, or after failures."""
        return address in self._trials or self._failures[address] > 0

    def reached(self, address: int) -> None:
        """Note that the address was reached: its next rest is short again. A suspect still has to answer."""
        self._trials.pop(address, None)
        if address not in self.suspects:
            self._take_back(address)

    def _take_back(self, address: int) -> None:
        self._failures[address] = 0
        self._rests_until[address] = 0.0
        self._aside_since[address] = None

    def aside_seconds(self, address: int, now: float) -> float:
        """Return for how long the address has been set aside, since its first failure in a row; 0 if it is not."""
        since = self._aside_since[address]
        return 0.0 if since is None else now - since


def _connection(loads: Sequence[int | None]) -> int:
    """Return an idle connection, else a new one, else the least loaded."""
    order = {0: -2, None: -1}
    return min(range(len(loads)), key=lambda index: order.get(loads[index], loads[index] or 0))
