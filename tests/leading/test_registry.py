"""The registry as bytes: what a member says of itself, and what is rubbish."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpccluster.leading.registry import SERVING, Entry, encode_entry, read_entry, read_list


def test_an_entry_comes_back() -> None:
    """As it was written; fields of a later version are ignored, and all but the addresses may be missing."""
    entry = Entry(("tcp://10.0.0.1:18800", "unix:///run/a.sock"), "1.2", SERVING, 1700000000.5)
    assert read_entry(encode_entry(entry)) == entry
    assert read_entry(b'{"addresses": ["a:1"], "zone": "b"}') == Entry(("a:1",), "", SERVING, 0.0)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"rubbish",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"addresses": []}',
        b'{"addresses": "a:1"}',
        b'{"addresses": [1]}',
        b'{"addresses": ["a:1"], "started_at": true}',
        b"[" * 100_000,
    ],
)
def test_rubbish_is_told(value: bytes) -> None:
    """With what was found."""
    with pytest.raises(ValueError, match="found"):
        read_entry(value)


def test_a_list() -> None:
    """The values of its members; a member that is rubbish does not harm the others."""
    content = json.dumps({"members": {"a": {"addresses": ["a:1"], "boot": "x", "until": 1.5}, "b": 7}}).encode()
    found = read_list(content)
    assert read_entry(found["a"]).addresses == ("a:1",)
    with pytest.raises(ValueError):
        read_entry(found["b"])


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"members": []}', b"{}"])
def test_what_is_no_list(content: bytes) -> None:
    """The reader keeps the last one."""
    with pytest.raises(ValueError, match="found"):
        read_list(content)


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_nothing_but_value_errors(value: bytes) -> None:
    """Whatever stands there."""
    for read in (read_entry, read_list):
        try:
            read(value)
        except ValueError:
            pass
