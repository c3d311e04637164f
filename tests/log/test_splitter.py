"""What a program writes becomes lines that are safe for the log, in whatever pieces it comes."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpccluster.log.splitter import CUT, LONGEST, LineSplitter


def lines_of(*pieces: bytes) -> list[str]:
    """All lines of an output that ends."""
    splitter = LineSplitter()
    return [line for piece in pieces for line in splitter.feed(piece)] + splitter.finish()


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        (b"", []),
        (b"one\ntwo", ["one", "two"]),
        (b"\n\nx\n", ["", "", "x"]),
        (b"dos\r\nmac\rmac\n", ["dos", "mac\\rmac"]),
        (b"a\tb\n", ["a\tb"]),
        ("größer\n".encode(), ["größer"]),
        (b"\x1b[31mred\x00\n", ["\\x1b[31mred\\x00"]),
        (b"\xff\xfe\n", ["\\xff\\xfe"]),
        ("a\u2028b\n".encode(), ["a\\u2028b"]),
    ],
)
def test_a_line_is_safe(written: bytes, lines: list[str]) -> None:
    """No control character but the tab stays, and nothing is lost."""
    assert lines_of(written) == lines


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_the_pieces_do_not_matter(written: bytes, cuts: list[int]) -> None:
    """Only the ends of lines do."""
    places = [0, *sorted(cuts), len(written)]
    pieces = [written[begin:end] for begin, end in zip(places, places[1:])]
    assert lines_of(*pieces) == lines_of(written)
    assert all(character.isprintable() or character == "\t" for line in lines_of(written) for character in line)


@pytest.mark.parametrize("size", [1, 1000, LONGEST + 2])
def test_a_long_line_is_cut_and_the_next_is_whole(size: int) -> None:
    """In pieces of any size, with a mark."""
    written = b"a" * LONGEST + b"\n" + b"b" * LONGEST + b"b" * 20_000 + b"\nc\n"
    found = lines_of(*(written[place : place + size] for place in range(0, len(written), size)))
    assert found == ["a" * LONGEST, "b" * LONGEST + CUT, "c"]


def test_a_character_is_not_cut_in_two() -> None:
    """What does not fit whole is left out."""
    assert lines_of(b"a" + "é".encode() * LONGEST) == ["a" + "é" * (LONGEST // 2 - 1) + CUT]


def test_a_line_without_end_does_not_grow() -> None:
    """100 MB of it: its begin is told at once, and nothing more is kept."""
    splitter, piece = LineSplitter(), b"x" * 65_536
    assert splitter.feed(piece) == ["x" * LONGEST + CUT]
    tracemalloc.start()
    try:
        for _ in range(100_000_000 // len(piece)):
            assert splitter.feed(piece) == []
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert splitter.feed(b"\nnext\n") == ["next"]
