"""What a task process and its dispatcher say to each other: there and back, in pieces, and from another version."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpccluster.tasks.wire import (
    OK,
    PICKLE,
    Done,
    Failure,
    Inbound,
    Progress,
    Run,
    pack_done,
    pack_failure,
    pack_large,
    pack_progress,
    pack_run,
    pack_ticket,
    tickets_in,
    unpack_failure,
    unsent,
)

RUN = Run(7, 3, 1, "mail:send", PICKLE, b"\x80\x05", 0.5, 0.25, 9)
DONE = Done(7, 3, 1, OK, b"\x80\x05", 1.5, 2.5)
PROGRESS = Progress(7, 3, 5, 10, "half")


def test_each_message_comes_out_as_it_went_in() -> None:
    """Value and type, several at once."""
    found = list(Inbound().feed(pack_run(RUN) + pack_done(DONE) + pack_progress(PROGRESS)))
    assert found == [RUN, DONE, PROGRESS]
    assert [type(each) for each in found] == [Run, Done, Progress]


@given(st.integers(1, 40))
def test_it_may_come_in_pieces(size: int) -> None:
    """A stream keeps no borders."""
    data, inbound = pack_run(RUN) * 3, Inbound()
    found = [each for at in range(0, len(data), size) for each in inbound.feed(memoryview(data)[at : at + size])]
    assert found == [RUN] * 3


@pytest.mark.parametrize(("message", "number"), [(DONE, 0), (PROGRESS, 1), (RUN, 2)])
def test_a_later_version_may_say_more(message: Any, number: int) -> None:
    """One field more, or a message that nobody here knows."""
    data = msgpack.packb([9, "new"]) + msgpack.packb([number, *message, "more"])
    assert list(Inbound().feed(data)) == [message]


def test_a_failure_has_any_text() -> None:
    """What a file system calls a file may be no Unicode."""
    failure = Failure("OSError", "no such file: '\udcff'", "Traceback …")
    assert unpack_failure(pack_failure(failure)) == failure


def test_a_long_payload_fits() -> None:
    """Beyond msgpack's default of 100 MB."""
    run = RUN._replace(payload=bytes(110 << 20))
    (found,) = Inbound().feed(pack_run(run))
    assert len(found.payload) == 110 << 20


def test_tickets_are_whole() -> None:
    """A pipe takes and gives them as they are."""
    assert tickets_in(pack_ticket(1) + pack_ticket(1 << 60)) == [1, 1 << 60]


@pytest.mark.parametrize(
    "message",
    [Run(5, 1, 1, "a:b", "pickle", b"x" * 100_000, 1.5, 0.5, 5), Done(5, 1, 1, "ok", b"y" * 70_000, 1.0, 2.0)],
)
def test_a_large_payload_is_not_copied(message: Any) -> None:
    """It is one of the pieces, which together are the same bytes."""
    pieces = pack_large(message)
    assert pieces[1] is message.payload
    assert Inbound().feed(b"".join(pieces)) == [message]


@pytest.mark.parametrize("sent", range(7))
def test_what_is_left_after_a_send(sent: int) -> None:
    """Goes out with the next one."""
    assert b"".join(unsent([b"ab", b"", b"cde", b"f"], sent)) == b"abcdef"[sent:]
