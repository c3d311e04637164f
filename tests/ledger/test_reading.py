"""What the master makes of a ledger: an honest one, and one that lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpccluster.ledger.layout import (
    BEGUN,
    CHECK,
    HEADER,
    INPUT_SHIFT,
    LOW_PEEK_OFFSET,
    MASK,
    PEEK_OFFSET,
    RECORD,
    SENDING,
    SENDING_AT,
    UNIX_COUNT,
    BegunKind,
    Flag,
    Shape,
)
from rpccluster.ledger.reading import Counted, Ledger, Rebuilt

SHAPE = Shape.fitting(8, 16, 65_536)
NUMBER = 7 << 32 | 1


class File:
    """The bytes of a ledger."""

    def __init__(self) -> None:
        self.data = bytearray(SHAPE.size)
        self.put(0, HEADER.pack(0, 0, SHAPE.records))

    def read(self, place: int, length: int) -> bytes:
        assert place >= 0 and length >= 0
        return bytes(self.data[place : place + length])

    def put(self, place: int, data: bytes) -> None:
        self.data[place : place + len(data)] = data

    def record(self, at: int, *fields: int) -> None:
        self.put(SHAPE.records_at + at * RECORD.size, RECORD.pack(*(each & MASK for each in fields)))

    def begun(self, calls: Sequence[tuple[int, int, int, int, int]]) -> None:
        self.put(0, HEADER.pack(len(calls), NUMBER, SHAPE.records))
        for at, call in enumerate(calls):
            self.put(SHAPE.begun_at + at * BEGUN.size, BEGUN.pack(*call))


def written(
    input: bytes = b"", output: bytes = b"", flags: int = 0, begun: Sequence[tuple[int, int, int, int]] = ()
) -> File:
    """Return a ledger with one connection, of which 1000 bytes had begun, and 500 of output were sent."""
    file = File()
    input_at, output_at = SHAPE.arena_at + 100, SHAPE.arena_at + 5000
    file.put(input_at, input)
    file.put(output_at, output)
    border, end = INPUT_SHIFT + 1000, 500 + len(output)
    file.record(3, NUMBER, NUMBER ^ CHECK, border, input_at - border, end, output_at - 500, flags, 9)
    file.begun([(NUMBER, *call) for call in begun])
    return file


def rebuilt(file: File, read: int = 1000, sent: int = 500) -> Rebuilt | None:
    return Ledger(file.read, SHAPE).rebuild(NUMBER, Counted(read, sent))


def test_a_connection_at_rest_needs_nothing() -> None:
    assert rebuilt(written()) == Rebuilt(b"", b"", [], 0, None, 1000)


def test_what_was_read_and_has_not_begun_is_its_input() -> None:
    assert rebuilt(written(b"abcdef"), 1004) == Rebuilt(b"abcd", b"", [], 0, None, 1000)


def unix_counts(sum: int, low_sum: int, noted: int, sending: tuple[int, int, int]) -> Ledger:
    """A ledger with the counts of a Unix socket, and of what was sent last."""
    file = written()
    file.put(SHAPE.unix_counts_at + 3 * UNIX_COUNT.size, UNIX_COUNT.pack(sum, low_sum, noted))
    file.put(SENDING_AT, SENDING.pack(*sending))
    return Ledger(file.read, SHAPE)


@pytest.mark.parametrize(
    ("peek_offset", "read"),
    [(PEEK_OFFSET, 0), (PEEK_OFFSET - 7, 7), (LOW_PEEK_OFFSET, PEEK_OFFSET - LOW_PEEK_OFFSET)],
)
def test_what_was_read_of_a_unix_socket_its_peek_offset_tells(peek_offset: int, read: int) -> None:
    assert unix_counts(PEEK_OFFSET, 0, 500, (0, 0, 0)).counted(NUMBER, peek_offset) == (read, 500, True)


def test_a_low_peek_offset_counts_from_before_it_was_to_be_raised() -> None:
    """The worker has noted what it will be raised to, and may not have come to do it."""
    read = PEEK_OFFSET - LOW_PEEK_OFFSET + 5
    ledger = unix_counts(read + PEEK_OFFSET, PEEK_OFFSET, 500, (0, 0, 0))
    assert ledger.counted(NUMBER, LOW_PEEK_OFFSET - 5) == (read, 500, True)
    assert ledger.counted(NUMBER, PEEK_OFFSET) == (read, 500, True)


def test_what_the_kernel_has_taken_of_the_last_send_counts() -> None:
    """Whether its worker has come to note that or not; of another connection it is nothing to this one."""
    for noted, sending in ((500, (20, NUMBER, 500)), (520, (20, NUMBER, 500)), (520, (9, NUMBER + 1, 500))):
        assert unix_counts(PEEK_OFFSET, 0, noted, sending).counted(NUMBER, PEEK_OFFSET) == (0, 520, True)


def test_a_unix_socket_that_the_ledger_does_not_have_has_no_counts() -> None:
    assert unix_counts(PEEK_OFFSET, 0, 0, (0, 0, 0)).counted(NUMBER + 1, PEEK_OFFSET) is None


def test_what_the_kernel_has_not_taken_is_its_output() -> None:
    assert rebuilt(written(output=b"a reply"), sent=502) == Rebuilt(b"", b"reply", [], 0, None, 1000)


def test_a_begun_call_is_lost_unless_its_reply_stands_in_the_output() -> None:
    request, notification = int(BegunKind.REQUEST), int(BegunKind.NOTIFICATION)
    calls = [
        (INPUT_SHIFT + 900, 0, 1, request),
        (INPUT_SHIFT + 950, 507, 2, request),
        (INPUT_SHIFT + 1000, 508, 3, request),
        (INPUT_SHIFT + 1000, 0, 0, notification),
    ]
    assert rebuilt(written(output=b"a reply", begun=calls)) == Rebuilt(b"", b"a reply", [1, 3], 1, None, 1000)


def test_a_call_that_had_just_begun_is_no_input_any_more() -> None:
    assert rebuilt(written(b"abcdef", begun=[(INPUT_SHIFT + 1002, 0, 1, 0)]), 1006) == Rebuilt(
        b"cdef", b"", [1], 0, None, 1002
    )


def test_an_unanswered_wish_is_told() -> None:
    assert rebuilt(written(flags=Flag.CLOSING)) == Rebuilt(b"", b"", [], 0, 9, 1000)


def test_what_the_ledger_does_not_hold_cannot_go_on() -> None:
    assert rebuilt(written(flags=Flag.BARE_INPUT)) is None
    assert rebuilt(written(flags=Flag.BARE_OUTPUT)) is None
    assert rebuilt(written(begun=[(INPUT_SHIFT + 1000, 0, 1, BegunKind.UNKNOWN)])) is None


def test_a_hole_is_no_record() -> None:
    assert rebuilt(File()) is None
    assert NUMBER not in Ledger(File().read, SHAPE)


def test_counters_that_the_ledger_contradicts_end_the_connection() -> None:
    assert rebuilt(written(), read=999) is None
    assert rebuilt(written(), sent=501) is None
    assert rebuilt(written(), read=1000 + SHAPE.size) is None


def test_overlapping_records_are_read_only_up_to_the_size_of_the_file() -> None:
    file = File()
    length = SHAPE.size - SHAPE.window_at
    for at in range(SHAPE.records):
        file.record(at, at + 1, (at + 1) ^ CHECK, INPUT_SHIFT, SHAPE.window_at - INPUT_SHIFT, 0, 0, 0, 0)
    ledger = Ledger(file.read, SHAPE)
    found = [ledger.rebuild(at + 1, Counted(length, 0)) for at in range(SHAPE.records)]
    assert 0 < sum(len(each.input) for each in found if each is not None) <= SHAPE.size
    assert None in found


def test_a_shorter_file_than_was_made_reads_as_a_hole() -> None:
    file = written(b"abcdef")
    for length in (0, 5, SHAPE.records_at + 10, SHAPE.begun_at + 3, SHAPE.arena_at + 103):
        short = File()
        short.data = file.data[:length]
        assert rebuilt(short, 1006) is None


word = st.one_of(
    st.integers(0, MASK),
    st.sampled_from([0, 1, NUMBER, MASK, INPUT_SHIFT, INPUT_SHIFT + 1000, SHAPE.arena_at, SHAPE.size - 1]),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.lists(word, min_size=8, max_size=8)), max_size=SHAPE.records),
    st.lists(st.tuples(word, word, word, st.integers(0, 2**32 - 1), st.integers(0, 4)), max_size=SHAPE.begun),
    word,
    st.integers(0, 2**40),
    st.integers(0, 2**40),
)
def test_whatever_the_ledger_says_it_is_bounded_by_the_file(
    records: list[Any], begun: list[Any], used: int, read: int, sent: int
) -> None:
    file = File()
    for at, (is_valid, fields) in enumerate(records):
        if is_valid:
            fields = [NUMBER + at, (NUMBER + at) ^ CHECK, *fields[2:]]
        file.record(at, *fields)
    file.begun(begun)
    file.put(0, HEADER.pack(used, NUMBER, used))
    ledger = Ledger(file.read, SHAPE)
    found = [ledger.rebuild(NUMBER + at, Counted(read, sent)) for at in range(SHAPE.records)]
    taken = sum(len(each.input) + len(each.output) for each in found if each is not None)
    assert taken <= SHAPE.size
    assert sum(len(each.lost) + each.notifications for each in found if each is not None) <= len(begun)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, SHAPE.size), st.binary(max_size=3000), st.integers(0, 3000))
def test_a_ledger_that_is_overwritten_anywhere_costs_no_more_than_its_connection(
    place: int, data: bytes, read: int
) -> None:
    file = written(b"abcdef" * 100, b"reply" * 20, begun=[(INPUT_SHIFT + 1000, 0, 1, 0)])
    file.put(place, data[: max(0, SHAPE.size - place)])
    found = rebuilt(file, read)
    assert found is None or len(found.input) + len(found.output) <= SHAPE.size
