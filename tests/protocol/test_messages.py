"""Which decoded values are MessagePack-RPC messages, to the letter of the specification."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgpack import ExtType

from rpccluster.errors import ProtocolError
from rpccluster.protocol.messages import (
    NOTIFY,
    REQUEST,
    RESPONSE,
    UNREADABLE_TYPE,
    Notification,
    Request,
    Response,
    to_message,
)


def test_the_types_have_the_specifications_numbers() -> None:
    """Request 0, response 1, notification 2."""
    assert (REQUEST, RESPONSE, NOTIFY) == (0, 1, 2)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([0, 0, "m", []], Request(0, "m", [])),
        ([0, 2**32 - 1, "m", [1, [2]]], Request(2**32 - 1, "m", [1, [2]])),
        ([0, 1, "", []], Request(1, "", [])),
        ([0, 1, "\udcff", []], Request(1, "\udcff", [])),
        ([0, 1, b"m", []], Request(1, "m", [])),
        ([0, 1, b"\xff", []], Request(1, "\udcff", [])),
        ([0, 1, "m", None], Request(1, "m", None)),
        ([0, 1, "m", {}], Request(1, "m", {})),
        ([0, 1, "m", ()], Request(1, "m", ())),
        ([0, 1, "m", "x"], Request(1, "m", "x")),
        ([1, 7, None, 5], Response(7, None, 5)),
        ([1, 7, "error", None], Response(7, "error", None)),
        ([1, 7, {"any": "thing"}, {"else": 1}], Response(7, {"any": "thing"}, {"else": 1})),
        ([1, 7, None, None], Response(7, None, None)),
        ([2, "m", [None]], Notification("m", [None])),
        ([2, b"m", []], Notification("m", [])),
        ([2, "m", ExtType(UNREADABLE_TYPE, b"why")], Notification("m", ExtType(UNREADABLE_TYPE, b"why"))),
    ],
)
def test_messages_are_known(value: list[Any], message: object) -> None:
    """Each of the three kinds, at the edges of its fields."""
    assert to_message(value) == message
    assert type(to_message(value)) is type(message)


@pytest.mark.parametrize(
    "value",
    [
        None,
        0,
        "",
        b"\x00",
        {},
        {0: 1},
        [],
        (0, 1, "m", []),
        [0],
        [3],
        [3, 1, "m", []],
        [-1, 1, "m", []],
        ["0", 1, "m", []],
        [None, 1, "m", []],
        [[0], 1, "m", []],
        [0, 1, "m"],
        [0, 1, "m", [], 1],
        [0, -1, "m", []],
        [0, 2**32, "m", []],
        [0, 1.0, "m", []],
        [0, True, "m", []],
        [0, "1", "m", []],
        [0, None, "m", []],
        [0, 1, None, []],
        [0, 1, ["m"], []],
        [1, 1, None],
        [1, 1, None, 2, 3],
        [1, -1, None, 2],
        [1, True, None, 2],
        [2, "m"],
        [2, "m", [], 1],
        [2, 1, "m", []],
        [2, "m", {}],
        [2, b"m", None],
        [2, "m", ExtType(UNREADABLE_TYPE - 1, b"why")],
    ],
    ids=repr,
)
def test_anything_else_is_refused(value: object) -> None:
    """With a few words on what it is."""
    with pytest.raises(ProtocolError, match=r"^found (an array of \d+|a value of type \w+), expected a MessagePack"):
        to_message(value)


def test_what_is_refused_is_never_shown() -> None:
    """`repr` of a deep value raises RecursionError, and of a long one fills the log."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ProtocolError, match=r"^found an array of 1, expected"):
        to_message(deep)
    with pytest.raises(ProtocolError) as raised:
        to_message("secret" * 1000)
    assert "secret" not in str(raised.value)
    while deep:  # taken apart by hand: freeing it at once would recurse, too
        deep = deep.pop()


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ([], ""),
        (["x" * 1000], "it begins with of type str, not with 0, 1 or 2"),
        ([7, 1], "it begins with 7, not with 0, 1 or 2"),
        ([True, 1, "m", []], "it begins with of type bool, not with 0, 1 or 2"),
        ([0, 1, "m"], "a request has 4 parts"),
        ([1, 1, None], "a response has 4 parts"),
        ([2, "m", [], 1], "a notification has 3 parts"),
        ([0, 2**32, "m", []], "the request's msgid is 4294967296, not an integer from 0 to 4294967295"),
        ([0, "1", "m", []], "the request's msgid is of type str, not an integer from 0 to 4294967295"),
        ([1, None, None, 2], "the response's msgid is of type NoneType, not an integer from 0 to 4294967295"),
        ([0, 1, None, []], "the request's method is of type NoneType, neither str nor bin"),
        ([2, 1, []], "the notification's method is 1, neither str nor bin"),
        ([2, "m", {}], "the notification's params are of type dict, not an array"),
    ],
    ids=repr,
)
def test_the_part_that_is_wrong_is_told(value: list[Any], part: str) -> None:
    """Whoever reads the log knows what to mend in the client."""
    with pytest.raises(ProtocolError) as raised:
        to_message(value)
    assert str(raised.value).partition("notification")[2] == (f"; {part}" if part else "")


@given(values)
def test_no_value_breaks_the_check(value: object) -> None:
    """A message that says the same as the value, or a `ProtocolError`."""
    try:
        message = to_message(value)
    except ProtocolError:
        return
    assert isinstance(value, list)
    name = -2 if isinstance(value[-2], bytes) and value[0] != RESPONSE else None
    if name is not None:
        value[name] = value[name].decode("utf-8", "surrogateescape")
    assert list(message) == value[1:]
