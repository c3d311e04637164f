"""The decoders agree with msgpack on everything that fuzzers have found, and on mutated messages."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpccluster.protocol.messages import Message

from .differential import check
from .streams import pack, sequences

CORPUS = Path(__file__).resolve().parent / "corpus"

#: What is put into a stream, or in place of some of it: any bytes, or many headers of containers.
_wedges = st.binary(max_size=6) | st.builds(
    lambda header, times: header * times,
    st.sampled_from(
        [b"\x91", b"\x81\x01", b"\x90", b"\xdc\x00\x01", b"\xdc\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xc0"]
    ),
    st.integers(1, 60),
)
_mutations = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 8), _wedges), max_size=4)


@pytest.mark.parametrize("case", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_what_was_found_once(case: Path) -> None:
    """By its name what was wrong with it, or might have been; in other pieces, too."""
    data = case.read_bytes()
    for seed in (data[:1], b"\x00", b"\x01", b"\x07"):
        check(seed + data[1:])


@given(st.binary(max_size=300))
def test_any_bytes(case: bytes) -> None:
    """In any pieces."""
    check(case)


@given(st.binary(min_size=1, max_size=1), sequences, _mutations)
def test_mutated_messages(seed: bytes, sequence: list[Message], mutations: list[tuple[float, int, bytes]]) -> None:
    """Messages in which something was put in another's place."""
    stream = bytearray(pack(*sequence))
    for share, length, wedge in mutations:
        at = int(share * len(stream))
        stream[at : at + length] = wedge
    check(seed + stream)
