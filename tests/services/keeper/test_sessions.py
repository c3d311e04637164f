"""Which consumers end with which connections, and what a successor knows of them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from rpccluster.ipc.fdpass import memory_file
from rpccluster.services.keeper.note import Note
from rpccluster.services.keeper.sessions import Bound, Sessions

ONE, TWO = b"1" * 16, b"2" * 16


class Kept:
    """Sessions whose ends are noted; ``memory`` outlives them."""

    def __init__(self, memory: int) -> None:
        self.ended: list[bytes] = []
        self.left: list[Bound] = []
        self.sessions = Sessions(Note(memory), self.ended.append, self.left.append, lambda call: None)


@pytest.fixture
def memory() -> Iterator[int]:
    """A file in memory."""
    descriptor = memory_file(name="test")
    yield descriptor
    os.close(descriptor)


def test_a_session_ends_with_its_last_connection(memory: int) -> None:
    """A connection may have several, one of its own among them."""
    kept = Kept(memory)
    a, b = kept.sessions.bound("a"), kept.sessions.bound("b")
    own = kept.sessions.own(a)
    assert kept.sessions.own(a) == own
    for bound, session in ((a, ONE), (b, ONE), (b, TWO), (b, TWO)):
        kept.sessions.bind(bound, session)
    kept.sessions.note_closed("a")
    assert kept.ended == [own]
    kept.sessions.note_closed("b")
    assert sorted(kept.ended[1:]) == [ONE, TWO]
    kept.sessions.note_closed("unknown")
    assert kept.left == [a, b]


def test_a_half_closed_connection_lets_nothing_wait(memory: int) -> None:
    """Its sessions live until it is closed."""
    kept = Kept(memory)
    bound = kept.sessions.bound("a")
    kept.sessions.bind(bound, ONE)
    kept.sessions.note_half_closed("a")
    assert (bound.is_half_closed, kept.left, kept.ended) == (True, [bound], [])


def test_who_does_not_come_back(memory: int) -> None:
    """Of those that had items."""
    kept = Kept(memory)
    kept.sessions.expect([TWO, ONE])
    kept.sessions.bind(kept.sessions.bound("a"), ONE)
    assert kept.sessions.give_up() == [TWO]
    assert kept.sessions.give_up() == []


def test_connections_bring_their_sessions_along(memory: int) -> None:
    """By the number of their socket; also to the second keeper after, if the first one was killed in the middle."""
    reads, writes = os.pipe(), os.pipe()
    try:
        first = Kept(memory)
        for outbox, descriptor, session in (("a", reads[0], ONE), ("b", writes[0], TWO)):
            first.sessions.bind(first.sessions.bound(outbox), session)
            first.sessions.note_given(outbox, descriptor)
        second = Kept(memory)
        second.sessions.note_adopted("x", reads[0])
        second.sessions.note_closed("x")
        assert (first.ended, second.ended) == ([], [ONE])
        third = Kept(memory)
        third.sessions.note_adopted("y", writes[0])
        third.sessions.note_given("y", writes[0])
        fourth = Kept(memory)
        fourth.sessions.note_adopted("z", writes[0])
        fourth.sessions.note_closed("z")
        assert fourth.ended == [TWO]
    finally:
        for descriptor in (*reads, *writes):
            os.close(descriptor)


def test_a_note_that_is_cut_is_read_to_there(memory: int) -> None:
    """And rubbish is none."""
    note = Note(memory)
    note.add(7, None, [ONE])
    note.add(8, TWO, [TWO, ONE])
    os.ftruncate(memory, os.fstat(memory).st_size - 1)
    left = Note(memory)
    assert left.take(7) == (None, [ONE])
    assert left.take(8) is None
    os.pwrite(memory, b"\xc1\xc1", 0)
    assert Note(memory).take(7) is None
