"""Stands for the lead, renews it and gives it up; shows each answer of the store on the page. Runs in the coordinator.

One greenlet calls the store, so nothing is asked twice at a time. Between two calls it writes a sign of life: a store
that does not come back, whatever its client library does, ends this process, and the next one goes on with the session.
The lease on the page ends by itself meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event

from rpccluster.errors import StoreDown
from rpccluster.leading.page import LeadPage
from rpccluster.leading.store import NOBODY, Standing, Store
from rpccluster.log import logger
from rpccluster.rate_limit import LogLimiter, and_more
from rpccluster.services.coordinator.memory import Memory
from rpccluster.services.coordinator.stores import Access

__all__ = ["Attending"]

RENEWALS = 12  # in a session
LEAST_PAUSE = 0.05
DOWN_PAUSE = 1.0  # at most, while the store is away
HOLD_SECONDS = 0.1  # that calls which run may take when the lead is given up
SUCCESSOR_SECONDS = 2.0  # that another one has to take the lead, before who asked is answered


class Attending:
    """The coordinator's way with its store."""

    def __init__(self, access: Access, memory: Memory, page: LeadPage, session_seconds: float, advertised: str) -> None:
        """``session_seconds`` are what is asked for; ``advertised`` is this cluster's first address."""
        self._access = access
        self._memory = memory
        self._page = page
        self._asked_seconds = self._session_seconds = session_seconds
        self._advertised = advertised
        self._store: Store | None = None
        self._watcher: Any = None
        self._wanted = Event()  # to come round at once
        self._limiter = LogLimiter()
        self._is_over = False
        self._is_down = False
        self._resigned: list[Callable[[str, Standing], object]] = []  # who waits for a resignation
        self.standing = NOBODY
        self.on_change: Callable[[], object] = list  # called when the lead has changed hands
        self.on_attended: Callable[[Store], object] = _do_nothing  # called when the store has answered
        self.show_life: Callable[[], object] = list  # called each time that the store has come back

    def start(self) -> None:
        """Begin to come round, in a greenlet of its own."""
        if not self._memory.recall(self._access.address):
            self._page.end()
        self._greenlet = gevent.spawn(self._run)

    def resign(self, told: Callable[[str, Standing], object]) -> None:
        """Give up the lead soon; ``told`` gets the reason why that has failed, if it has, and who leads then."""
        self._resigned.append(told)
        self._wanted.set()

    def stop(self) -> None:
        """Come round no more."""
        self._is_over = True
        self._wanted.set()

    def end(self, *, leave: bool) -> None:
        """Let go of the store; with ``leave`` end the session, too, since there is no successor. Waits for that."""
        self.stop()
        self._greenlet.join(self._session_seconds / 4)
        store, self._store = self._store, None
        if store is not None:
            self._unwatch()
            if leave:
                self._page.end()
                self._leave(store)
            else:
                store.close()

    def _leave(self, store: Store) -> None:
        try:
            self._access.call(store.leave)
            self._memory.keep(self._access.address, b"")
        except StoreDown as error:
            logger.warning("Cannot give up the lead, which ends in %g seconds: %s", self._session_seconds, error)

    # -- coming round

    def _run(self) -> None:
        while not self._is_over:
            self.show_life()
            self._wanted.clear()
            try:
                self._come_round()
            except StoreDown as error:
                self._note_down(error)
            self.show_life()
            pause = max(LEAST_PAUSE, self._session_seconds / RENEWALS)
            self._wanted.wait(min(pause, DOWN_PAUSE) if self._is_down else pause)

    def _come_round(self) -> None:
        store = self._store or self._open()
        if self._resigned:
            self._resign(store)
        self._attend(store)

    def _open(self) -> Store:
        self._store = store = self._access.open(self._memory.recall(self._access.address))
        self._watch(store)
        return store

    def _attend(self, store: Store) -> None:
        standing = self._access.call(store.attend)
        self._memory.keep(self._access.address, store.remembered)
        self._note_session(store.session_seconds)
        if self._is_over and not standing.is_ours:
            return
        self._page.show(standing, store.session_seconds)
        self._note_up()
        self._note(standing)
        self.on_attended(store)

    def come_round(self) -> None:
        """Go to the store at once."""
        self._wanted.set()

    def _watch(self, store: Store) -> None:
        """Come round at once when the store says that something has changed."""
        self._unwatch()
        if store.fileno() >= 0:
            self._watcher = gevent.get_hub().loop.io(store.fileno(), 1)
            self._watcher.start(self._on_change, store)

    def _unwatch(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None

    def _on_change(self, store: Store) -> None:
        store.drain()
        self._wanted.set()

    # -- giving it up

    def _resign(self, store: Store) -> None:
        """Let the calls that run end, let go, and answer when another one has taken over, or has had the time to."""
        asked, self._resigned = self._resigned, []
        error = ""
        if self.standing.is_ours:
            self._page.hold()
            gevent.sleep(HOLD_SECONDS)
            self._page.end()
            try:
                self._access.call(store.resign)
                logger.info("Resigned the lead (token: %d)", self.standing.token)
                self._await_successor(store)
            except StoreDown as raised:
                error = str(raised)
        for told in asked:
            told(error, self.standing)

    def _await_successor(self, store: Store) -> None:
        waited = 0.0
        while True:
            self._attend(store)
            self.show_life()
            if self.standing.token or waited >= SUCCESSOR_SECONDS or self._is_over:
                return
            self._wanted.clear()
            self._wanted.wait(LEAST_PAUSE)
            waited += LEAST_PAUSE

    # -- what is said about it

    def _note(self, standing: Standing) -> None:
        before, self.standing = self.standing, standing
        if (before.token, before.leader, before.is_ours) == (standing.token, standing.leader, standing.is_ours):
            return
        if standing.is_ours:
            logger.info("This cluster leads (token: %d)", standing.token)
        elif standing.token:
            logger.info("The lead is at %s (token: %d)", standing.leader or "an unnamed cluster", standing.token)
            if standing.leader and standing.leader == self._advertised:
                logger.warning(
                    "Another cluster leads and advertises %s, as this one does, unless this one was just started "
                    "again: clients cannot tell them apart",
                    standing.leader,
                )
        elif before.token:
            logger.info("Nobody leads")
        self.on_change()

    def _note_session(self, seconds: float) -> None:
        if seconds != self._session_seconds:
            self._session_seconds = seconds
            if seconds != self._asked_seconds:
                logger.warning(
                    "The server does not grant the session_timeout of %g seconds: a session has %g",
                    self._asked_seconds,
                    seconds,
                )

    def _note_up(self) -> None:
        if self._is_down:
            self._is_down = False
            logger.info("Reached the store %s again", self._access.address)

    def _note_down(self, error: StoreDown) -> None:
        """Say that nothing is known; who asked for a resignation is told so."""
        self._is_down = True
        is_due, held_back = self._limiter.should_log("store")
        if is_due:
            logger.warning("Cannot stand for the lead: %s%s", error, and_more(held_back))
        asked, self._resigned = self._resigned, []
        for told in asked:
            told(str(error), self.standing)
        if self.standing.token and not self._page.leader().token:
            self._note(NOBODY)


def _do_nothing(store: Store) -> None:
    pass
