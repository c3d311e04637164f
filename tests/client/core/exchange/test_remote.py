"""From a reply's error to the caller's exception."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpccluster.client.core.exchange.remote import remote_error
from rpccluster.errors import ArgumentError, NoMethodError, RemoteError


@pytest.mark.parametrize(
    "error, kind, type_, message",
    [
        ("ValueError: no", RemoteError, "ValueError", "no"),
        ("ValueError: ", RemoteError, "ValueError", ""),
        ("KeyError: 'a: b'", RemoteError, "KeyError", "'a: b'"),
        ("json.JSONDecodeError: two\nlines", RemoteError, "json.JSONDecodeError", "two\nlines"),
        ("TimeoutError: took too long", RemoteError, "TimeoutError", "took too long"),
        ("WorkerLost: pid 5", RemoteError, "WorkerLost", "pid 5"),
        ("ArgumentError: missing 'x'", ArgumentError, "ArgumentError", "missing 'x'"),
        ("'sum' method not found", NoMethodError, "NoMethodError", "'sum' method not found"),
        ("'' method not found", NoMethodError, "NoMethodError", "'' method not found"),
        ("it broke", RemoteError, "", "it broke"),
        ("", RemoteError, "", ""),
        ("two words: x", RemoteError, "", "two words: x"),
        (b"ValueError: \xff", RemoteError, "ValueError", "\udcff"),
        ([0, "broken"], RemoteError, "", "broken"),
        ([1, b"Invalid: \xff"], RemoteError, "Invalid", "\udcff"),
        ([1, 2], RemoteError, "", "[1, 2]"),
        ([True, "broken"], RemoteError, "", "[True, 'broken']"),
        ({"code": 5}, RemoteError, "", "{'code': 5}"),
        (False, RemoteError, "", "False"),
    ],
)
def test_forms(error: Any, kind: type, type_: str, message: str) -> None:
    """Each form of the contract, and what other servers send, becomes the error that the contract names."""
    found = remote_error(error)
    assert type(found) is kind
    assert (found.type, found.message) == (type_, message)


def test_long_and_deep_errors_are_bounded() -> None:
    """An error that is no text is told in a bounded one, however deep or long it is."""
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    assert len(remote_error(deep).message) <= 2000
    assert len(remote_error([["x" * 10**6] * 1000] * 1000).message) <= 2000


@given(st.recursive(st.none() | st.text() | st.binary() | st.floats() | st.integers(), st.lists, max_leaves=20))
def test_whatever_a_server_sends(error: object) -> None:
    """No error that a server can send makes the client raise anything but that error."""
    assert str(remote_error(error)) is not None
