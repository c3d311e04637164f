"""Messages and streams of them for the tests of decoders: drawn by Hypothesis, cut anywhere."""

from __future__ import annotations

from typing import Any

import msgpack
from hypothesis import strategies as st

from rpccluster.protocol.messages import Message, Notification, Request, Response

__all__ = ["LIMIT", "cut", "cuts", "messages", "pack", "sequences", "value_of"]

LIMIT = 1 << 16

_texts = st.text(max_size=20) | st.binary(max_size=8).map(lambda data: data.decode("utf-8", "surrogateescape"))
_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    _texts,
    st.binary(max_size=300),
    st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20)),
    st.builds(msgpack.Timestamp, st.integers(-(2**40), 2**40), st.integers(0, 999_999_999)),
)
_keys = st.none() | st.booleans() | st.integers(-100, 2**40) | _texts | st.binary(max_size=5)
_values = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=15,
)
_msgids = st.integers(0, 2**32 - 1)
_params = st.lists(_values, max_size=4)

#: Any message.
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Request, _msgids, _texts, _params),
    st.builds(Response, _msgids, _values, _values),
    st.builds(Notification, _texts, _params),
)
#: A few of them.
sequences = st.lists(messages, max_size=12)
#: Where a stream of any length is cut, as shares of it.
cuts = st.lists(st.floats(0, 1), max_size=30)


def value_of(message: Message) -> list[Any]:
    """The message as the specification writes it."""
    return [{Request: 0, Response: 1, Notification: 2}[type(message)], *message]


def pack(*values: Any) -> bytes:
    """The bytes of ``values``, messages or whatever, one after another."""
    packer = msgpack.Packer(use_bin_type=True, unicode_errors="surrogateescape")
    plain = (value_of(value) if isinstance(value, (Request, Response, Notification)) else value for value in values)
    return b"".join(packer.pack(value) for value in plain)


def cut(stream: bytes, shares: list[float]) -> list[bytes]:
    """``stream`` in pieces; some may be empty."""
    places = sorted(int(share * len(stream)) for share in shares)
    return [stream[begin:end] for begin, end in zip([0, *places], [*places, len(stream)])]
