"""The coordinator's way with its store, which is made up here: what it shows, says and leaves behind."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rpccluster.errors import StoreDown
from rpccluster.ipc.fdpass import memory_file
from rpccluster.leading.page import LeadPage
from rpccluster.leading.store import NOBODY, Standing, boot_ns
from rpccluster.services.coordinator.attending import Attending
from rpccluster.services.coordinator.memory import Memory
from tests.worker.rig import until

HOUR = 3600 * 10**9


class MadeUp:
    """A store that answers what the test says; a `rpccluster.services.coordinator.stores.Access`, too."""

    address = "made up"

    def __init__(self) -> None:
        self.session_seconds = 0.3
        self.answer: Standing | StoreDown = NOBODY
        self.after_resigning: Standing | StoreDown = NOBODY
        self.done: list[str] = []
        self.remembered = b"session"
        self.opened_with: list[bytes] = []

    def open(self, remembered: bytes) -> Any:
        self.opened_with.append(remembered)
        return self

    def call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        return method(*arguments)

    def attend(self) -> Standing:
        if isinstance(self.answer, StoreDown):
            raise self.answer
        return self.answer

    def resign(self) -> None:
        self.done.append("resigned")
        self.answer = self.after_resigning

    def leave(self) -> None:
        self.done.append("left")

    def close(self) -> None:
        self.done.append("closed")

    def fileno(self) -> int:
        return -1

    def drain(self) -> None:
        """It tells nothing."""


class Bench:
    """What a coordinator has, without its process."""

    def __init__(self) -> None:
        self.store = MadeUp()
        self.page = LeadPage()
        self.descriptor = memory_file()
        self.memory = Memory(self.descriptor)
        self.lives = 0
        self.changes: list[Standing] = []
        store: Any = self.store
        self.attending = Attending(store, self.memory, self.page, 0.3, "unix:///me")
        self.attending.show_life = self._live
        self.attending.on_change = lambda: self.changes.append(self.attending.standing)

    def _live(self) -> None:
        self.lives += 1

    def leads(self, token: int = 1) -> Standing:
        return Standing(token, "unix:///me", boot_ns() + HOUR)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.attending.end(leave=False)
    os.close(made.descriptor)


def test_each_answer_stands_on_the_page_and_each_change_is_told(bench: Bench) -> None:
    """A lead, its renewals, and its end; a sign of life each time."""
    bench.store.answer = lead = bench.leads()
    bench.attending.start()
    until(lambda: bench.page.is_leading, "it leads")
    assert bench.page.token == 1 and bench.page.ends_ns == lead.ends_ns
    lives = bench.lives
    until(lambda: bench.lives > lives + 2, "it comes round")
    assert len(bench.changes) == 1
    bench.store.answer = Standing(2, "unix:///other")
    until(lambda: not bench.page.is_leading, "it does not lead")
    assert bench.page.leader().address == "unix:///other"
    assert [each.token for each in bench.changes] == [1, 2]


def test_a_store_that_is_away_changes_nothing_but_the_time(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """The lease goes on until its end; that is said once, and the return, too."""
    bench.store.answer = bench.leads()
    with caplog.at_level(logging.INFO):
        bench.attending.start()
        until(lambda: bench.page.is_leading, "it leads")
        bench.store.answer = StoreDown("gone")
        lives = bench.lives
        until(lambda: bench.lives > lives + 6, "it tries on")
        assert bench.page.is_leading and bench.page.token == 1
        bench.store.answer = bench.leads()
        until(lambda: "Reached the store made up again" in caplog.text, "it says so")
    assert caplog.text.count("Cannot stand for the lead: gone") == 1


def test_resigning_ends_the_page_before_the_store_is_told(bench: Bench) -> None:
    """Whoever asked hears who leads then."""
    bench.store.answer = bench.leads()
    bench.store.after_resigning = Standing(2, "unix:///other")
    bench.attending.start()
    until(lambda: bench.page.is_leading, "it leads")
    told: list[tuple[str, Standing]] = []
    leading_then: list[bool] = []
    resign = bench.store.resign
    bench.store.resign = lambda: (leading_then.append(bench.page.is_leading), resign())  # type: ignore[method-assign, assignment, func-returns-value]
    bench.attending.resign(lambda error, standing: told.append((error, standing)))
    until(lambda: told, "it is answered")
    assert told == [("", Standing(2, "unix:///other"))]
    assert leading_then == [False]


def test_resigning_elsewhere_is_done_already(bench: Bench) -> None:
    """Nothing is given up."""
    bench.store.answer = Standing(2, "unix:///other")
    bench.attending.start()
    told: list[tuple[str, Standing]] = []
    until(lambda: bench.attending.standing.token, "it knows")
    bench.attending.resign(lambda error, standing: told.append((error, standing)))
    until(lambda: told, "it is answered")
    assert told == [("", bench.store.answer)] and bench.store.done == []


def test_a_successor_opens_the_session_that_was_left(bench: Bench) -> None:
    """And the page is left as it is: the lease goes on."""
    bench.memory.keep("made up", b"session of the one before")
    bench.page.show(bench.leads(7), 0.3)
    bench.store.answer = bench.leads(7)
    bench.attending.start()
    assert bench.page.token == 7
    until(lambda: bench.memory.recall("made up") == b"session", "it keeps its own")
    assert bench.store.opened_with == [b"session of the one before"]


def test_without_a_session_the_page_of_another_store_ends(bench: Bench) -> None:
    """Its lead is none here."""
    bench.memory.keep("another store", b"session")
    bench.page.show(bench.leads(7), 0.3)
    bench.attending.start()
    assert not bench.page.is_leading


@pytest.mark.parametrize("leaves", [True, False], ids=["leaves", "leaves it to a successor"])
def test_the_end_leaves_the_lead_or_hands_it_on(bench: Bench, leaves: bool) -> None:
    """Only the end of the whole cluster frees it."""
    bench.store.answer = bench.leads()
    bench.attending.start()
    until(lambda: bench.page.is_leading, "it leads")
    bench.attending.end(leave=leaves)
    assert bench.store.done == (["left"] if leaves else ["closed"])
    assert bench.page.is_leading is not leaves
    assert bench.memory.recall("made up") == (b"" if leaves else b"session")


def test_a_twin_and_another_session_than_asked_for_are_told(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Once each."""
    bench.store.session_seconds = 0.6
    bench.store.answer = Standing(3, "unix:///me")
    with caplog.at_level(logging.INFO):
        bench.attending.start()
        lives = bench.lives
        until(lambda: bench.lives > lives + 6, "it comes round")
    assert caplog.text.count("Another cluster leads and advertises unix:///me") == 1
    assert caplog.text.count("does not grant the session_timeout of 0.3 seconds: a session has 0.6") == 1
