"""The interface of a store: where clusters agree on who leads, and tell where each of them can be reached.

A store promises one thing: from the begin of a lease until its end nobody else is told that he leads, and whoever leads
later has a higher token. `rpccluster.leading.file_store` and `rpccluster.leading.zookeeper_store` keep this promise. A
store decides nothing; the coordinator (`rpccluster.services.coordinator`) calls it, a few times in each session.
"""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol

__all__ = ["NOBODY", "Standing", "Store", "boot_ns"]


class Standing(NamedTuple):
    """What a store has said about the lead.

    ``token`` and ``leader`` are those of the cluster that leads: a number that grows with every holder, and the first
    address; 0 and empty while nobody leads. ``ends_ns`` is the end of the lease, by `boot_ns`, if this cluster leads,
    counted from when it asked; 0 if another one does.
    """

    token: int = 0
    leader: str = ""
    ends_ns: int = 0

    @property
    def is_ours(self) -> bool:
        """Whether this cluster leads, until the lease ends."""
        return self.ends_ns > 0


NOBODY = Standing()


class Store(Protocol):
    """One cluster's access to a store. Each method may wait for a bounded time, and raises `StoreDown`.

    A session keeps what a cluster holds alive while it calls `attend`; it outlives its process, so that the next one
    goes on with it if it is given ``remembered``.
    """

    session_seconds: float  # of a session, as granted

    @property
    def remembered(self) -> bytes:
        """What another process needs to go on with this session; it changes in `attend`."""

    def attend(self) -> Standing:
        """Stand for the lead, or renew it."""

    def resign(self) -> None:
        """Give up the lead, and do not stand for it before another one has had it, or some seconds have passed."""

    def set_member(self, name: str, value: bytes) -> None:
        """Show ``value`` as that of the member ``name`` for as long as the session lives."""

    def remove_member(self, name: str) -> None:
        """Show the member no longer."""

    def members(self) -> dict[str, bytes]:
        """Return the values of all members by their names."""

    def leave(self) -> None:
        """End the session: the lead is free at once, and the members are gone."""

    def close(self) -> None:
        """Close what this process has open; the session lives on."""

    def fileno(self) -> int:
        """Return a descriptor that is readable when the lead may have changed hands."""

    def drain(self) -> None:
        """Make the descriptor unreadable until the next change."""


def boot_ns() -> int:
    """Return the nanoseconds since this machine was booted, also while it was suspended: the clock of leases."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
