"""What a coordinator leaves to the next one, also when it is killed while it writes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from rpccluster.ipc.fdpass import memory_file
from rpccluster.services.coordinator.memory import Memory

HERE, THERE = "file:/here", "file:/there"


@pytest.fixture
def descriptor() -> Iterator[int]:
    """A file in memory, as the master makes it."""
    made = memory_file()
    yield made
    os.close(made)


def test_the_next_one_recalls_what_was_kept_last(descriptor: int) -> None:
    """Of the same store; a session of another one is worth nothing."""
    memory = Memory(descriptor)
    assert memory.recall(HERE) == b""
    memory.keep(HERE, b"first")
    memory.keep(HERE, b"second \0 with a zero")
    assert Memory(descriptor).recall(HERE) == b"second \0 with a zero"
    assert Memory(descriptor).recall(THERE) == b""


def test_the_name_in_the_registry_goes_with_the_store(descriptor: int) -> None:
    """Each store has its own."""
    memory = Memory(descriptor)
    memory.keep(HERE, b"session")
    memory.keep_member("me")
    assert (Memory(descriptor).member, Memory(descriptor).recall(HERE)) == ("me", b"session")
    memory.keep(THERE, b"other")
    assert (Memory(descriptor).member, Memory(descriptor).recall(THERE)) == ("", b"other")


def test_one_that_was_killed_while_it_wrote_leaves_the_one_before(descriptor: int) -> None:
    """The sum of a half one is wrong, wherever it was cut."""
    Memory(descriptor).keep(HERE, b"whole")
    before = os.pread(descriptor, 4096, 0)
    memory = Memory(descriptor)
    memory.keep(HERE, b"newer!")
    after = os.pread(descriptor, 4096, 0)
    changed = [at for at in range(4096) if before[at] != after[at]]
    for at in changed:
        os.pwrite(descriptor, after[:at] + before[at:], 0)
        assert Memory(descriptor).recall(HERE) == b"whole"
    os.pwrite(descriptor, after, 0)
    assert Memory(descriptor).recall(HERE) == b"newer!"


def test_too_much_is_refused(descriptor: int) -> None:
    """It has two pages at most."""
    with pytest.raises(ValueError, match="expected at most"):
        Memory(descriptor).keep(HERE, b"x" * 3000)
