"""This cluster's entry in the registry: made while it serves, removed before it goes. Runs in the coordinator.

The master says in which state the cluster is; the coordinator shows it when its store has answered next, which is at
once. An entry has a name of its own for as long as its content stays, so whoever has read it need not read it again. A
coordinator that goes on with the session of another one finds the name in its memory.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from rpccluster.errors import StoreDown
from rpccluster.leading.registry import Entry, encode_entry, read_entry
from rpccluster.leading.store import Store
from rpccluster.log import logger
from rpccluster.rate_limit import LogLimiter, and_more
from rpccluster.services.coordinator.memory import Memory
from rpccluster.services.coordinator.stores import Access
from rpccluster.version import __version__

__all__ = ["Members"]

_NAME_BYTES = 8


class Members:
    """The entry of a cluster that is reached at ``addresses``."""

    def __init__(self, access: Access, memory: Memory, addresses: Sequence[str]) -> None:
        self._access = access
        self._memory = memory
        self._addresses = tuple(addresses)
        self._wanted: Entry | None = None
        self._has_news = False
        self._limiter = LogLimiter()

    def want(self, state: str, started_at: float) -> None:
        """Have the registry list the cluster in ``state``; if that is empty, not at all."""
        self._wanted = Entry(self._addresses, __version__, state, round(started_at, 3)) if state else None
        self._has_news = True

    def turn(self, store: Store) -> None:
        """Bring the registry up to date, if there is news; what fails is told, and tried again.

        The lead does not depend on it: a store may let this cluster lead, and not be listed.
        """
        if not self._has_news:
            return
        try:
            self._bring_up_to_date(store)
            self._has_news = False
        except StoreDown as error:
            is_due, held_back = self._limiter.should_log("registry")
            if is_due:
                logger.warning("Cannot change this cluster's entry in the registry: %s%s", error, and_more(held_back))

    def _bring_up_to_date(self, store: Store) -> None:
        if self._wanted is None:
            self._remove(store, self._memory.member)
            self._memory.keep_member("")
        else:
            self._show(store, self._wanted)

    def _show(self, store: Store, entry: Entry) -> None:
        before = self._memory.member
        present = self._access.call(store.members)
        if before and _says(present.get(before), entry):
            self._access.call(store.set_member, before, encode_entry(entry))
            return
        name = os.urandom(_NAME_BYTES).hex()
        self._memory.keep_member(name)  # first, so that no entry is forgotten whose maker was killed
        self._access.call(store.set_member, name, encode_entry(entry))
        logger.info("The registry lists this cluster: %s", ", ".join(entry.addresses))
        self._remove(store, before)
        self._tell_of_others({other: value for other, value in present.items() if other != before})

    def _remove(self, store: Store, name: str) -> None:
        if name:
            self._access.call(store.remove_member, name)
            logger.info("The registry no longer lists the entry %s of this cluster", name)

    def _tell_of_others(self, others: Mapping[str, bytes]) -> None:
        for name, value in others.items():
            try:
                shared = set(read_entry(value).addresses) & set(self._addresses)
            except ValueError:
                continue
            if shared:
                logger.warning(
                    "The registry lists %s for another cluster, too (%s), unless this one was just started again: "
                    "clients cannot tell them apart",
                    ", ".join(sorted(shared)),
                    name,
                )


def _says(value: bytes | None, entry: Entry) -> bool:
    try:
        return value is not None and read_entry(value) == entry
    except ValueError:
        return False
