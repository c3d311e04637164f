"""The journal of the dispatcher: what it holds for a successor."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from rpccluster.ipc.fdpass import memory_file
from rpccluster.services.dispatcher.journal import READING, WRITING, Entry, Journal


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = memory_file(name="journal")
    yield descriptor
    os.close(descriptor)


def test_a_successor_reads_what_was_entered(memory: int) -> None:
    """All that is in force, the last word on each task."""
    journal = Journal(memory)
    journal.enter(Entry(1, 10, 1, 100))
    journal.enter(Entry(2, 10, 1, 101))
    journal.enter(Entry(3, 11, 1, 102))
    journal.clear(101)
    journal.enter(Entry(4, 12, 2, 100))
    journal.clear(999)
    successor = Journal(memory)
    assert set(successor.entries()) == {Entry(4, 12, 2, 100), Entry(3, 11, 1, 102)}
    successor.enter(Entry(5, 10, 1, 103))
    assert set(Journal(memory).entries()) == set(successor.entries())
    assert len(successor) == 3


def test_it_grows(memory: int) -> None:
    """What was cleared leaves its place to others."""
    journal = Journal(memory)
    for number in range(1, 10_001):
        journal.enter(Entry(number, 1, 1, number))
    size = os.fstat(memory).st_size
    for number in range(1, 10_001):
        journal.clear(number)
        journal.enter(Entry(number, 1, 1, 20_000 + number))
    assert os.fstat(memory).st_size == size
    assert {entry.task_id for entry in Journal(memory).entries()} == set(range(20_001, 30_001))


def test_what_was_under_way_shows(memory: int) -> None:
    """Of the very process: another one may have its row since."""
    journal = Journal(memory)
    journal.mark(3, 10, READING)
    journal.mark(4, 11, WRITING)
    journal.mark(5, 12, WRITING)
    journal.mark(5, 12, 0)
    successor = Journal(memory)
    assert successor.is_cut(3, 10) and successor.is_cut(4, 11)
    assert not (successor.is_cut(5, 12) or successor.is_cut(3, 13) or successor.is_cut(6, 10))


def test_another_format_is_not_read(memory: int) -> None:
    """That is told, and the journal begins anew."""
    journal = Journal(memory)
    assert not journal.is_of_another_format
    journal.enter(Entry(1, 10, 1, 100))
    assert not Journal(memory).is_of_another_format
    os.pwrite(memory, bytes(8), 0)  # as journals began without a format, if no byte was under way
    successor = Journal(memory)
    assert successor.is_of_another_format and len(successor) == 0
    successor.enter(Entry(2, 11, 1, 101))
    third = Journal(memory)
    assert not third.is_of_another_format and [entry.task_id for entry in third.entries()] == [101]
