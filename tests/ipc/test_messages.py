"""What processes say to each other: there and back, and what another version might say."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpccluster.errors import UnknownMessage
from rpccluster.ipc import messages
from rpccluster.ipc.messages import (
    Accept,
    Adopted,
    BootFailed,
    Closed,
    DonorGone,
    Give,
    Go,
    Message,
    Ready,
    Refused,
    Release,
    Released,
    ReopenLogs,
    Reply,
    Retire,
    Serving,
    WantsToRetire,
    decode,
    encode,
)

EVERY = [
    Ready(["sum", "rpc.ping"]),
    Ready([]),
    BootFailed("service", "ImportError: no module named 'x'\n  File …"),
    WantsToRetire("max_requests"),
    Accept(),
    Retire(30.0, False),
    Retire(0.5, True),
    ReopenLogs(),
    Serving(4711),
    Go(),
    Release(64),
    Released(3),
    Give(1 << 32 | 7, ["127.0.0.1", 4711], False, b"\x94\x00", b"\xff\x00", [[1, 2], [1, (1 << 32) - 1]]),
    Give((1 << 63) - 1, [], True, b"", b"", []),
    Adopted(5),
    Refused(6),
    Reply(7, 8, b"\x94\x01\x05\xc0\xc0"),
    Closed(9),
    DonorGone(10, False),
    DonorGone(11, True),
]


@pytest.mark.parametrize("message", EVERY, ids=lambda message: type(message).__name__)
def test_every_message_comes_out_as_it_went_in(message: Message) -> None:
    """Value and type."""
    assert decode(encode(message)) == message
    assert type(decode(encode(message))) is type(message)


def test_every_kind_is_tried_here() -> None:
    """A kind that is added comes into the list above."""
    assert {type(message) for message in EVERY} == set(messages._KINDS)


def test_the_table_only_ever_grows_at_its_end() -> None:
    """Two versions speak with each other during an upgrade: these numbers stay."""
    begins: list[type] = [Ready, BootFailed, WantsToRetire, Accept, Retire, ReopenLogs, Serving, Go]
    begins += [Release, Released, Give, Adopted, Refused, Reply, Closed, DonorGone]
    assert list(messages._KINDS[: len(begins)]) == begins
    assert encode(Go()) == b"\x91\x07"


def test_text_that_is_no_unicode_passes() -> None:
    """A traceback may show a file name that is not UTF-8."""
    message = BootFailed("service", "no such file: '\udcff.py'")
    assert decode(encode(message)) == message


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\xc1",
        b"\x90",
        b"\x05",
        b"\xa1x",
        b"\x91\xa1x",
        b"\x91\xc0",
        b"\x91\x90",
        b"\x91\xcd\x03\xe8",
        b"\x91\x00",
        b"\x93\x00\x90\x01",
        b"\x91\x07\x00",
        b"\x80",
        b"\x81\x07\x00",
        b"\x91\xff",
        b"\x92\xf8\x90",
    ],
    ids=repr,
)
def test_what_this_version_does_not_know_is_told(packet: bytes) -> None:
    """`UnknownMessage`, whatever it is, never a message by accident."""
    with pytest.raises(UnknownMessage, match=f"^found a packet of {len(packet)} bytes"):
        decode(packet)


@given(st.binary(max_size=100))
def test_no_packet_breaks_the_decoder(packet: bytes) -> None:
    """A message or `UnknownMessage`."""
    try:
        message = decode(packet)
    except UnknownMessage:
        return
    assert type(message) in messages._KINDS


@given(st.integers(0, len(messages._KINDS) - 1), st.lists(st.integers() | st.text() | st.lists(st.text()), max_size=3))
def test_a_message_of_another_number_of_fields_is_told(number: int, fields: list[object]) -> None:
    """A later version might have added some."""
    packet = msgpack.packb([number, *fields], default=str)
    if len(messages._KINDS[number]._fields) == len(fields):  # type: ignore[attr-defined]
        assert tuple(decode(packet)) == tuple(msgpack.unpackb(packet)[1:])
    else:
        with pytest.raises(UnknownMessage):
            decode(packet)
