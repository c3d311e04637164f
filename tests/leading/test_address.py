"""The addresses of stores."""

from __future__ import annotations

import pytest

from rpccluster.errors import AddressError
from rpccluster.leading.address import StoreAddress


@pytest.mark.parametrize(
    ("text", "address", "shown"),
    [
        ("file:/run/lead", StoreAddress("/run/lead"), "file:/run/lead"),
        ("file:lead", StoreAddress("lead"), "file:lead"),
        ("zookeeper://h:1/p", StoreAddress("/p", ("h:1",)), "zookeeper://h:1/p"),
        ("zookeeper://h/p/q", StoreAddress("/p/q", ("h:2181",)), "zookeeper://h:2181/p/q"),
        ("zookeeper://a:1,[::1]:2/p", StoreAddress("/p", ("a:1", "[::1]:2")), "zookeeper://a:1,[::1]:2/p"),
    ],
)
def test_an_address_is_read_and_shown(text: str, address: StoreAddress, shown: str) -> None:
    """A port that is not given is ZooKeeper's."""
    assert StoreAddress.parse(text) == address
    assert str(address) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "file:",
        "file:/run/",
        "lead",
        "zookeeper:h:1/p",
        "zookeeper://h:1",
        "zookeeper://h:1/",
        "zookeeper://h:1/a/../b",
        "zookeeper:///p",
        "zookeeper://h:0/p",
        "zookeeper://h:70000/p",
        "zookeeper://a b:1/p",
        "etcd://h:1/p",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    """With what was found and what was expected."""
    with pytest.raises(AddressError, match=r"found .*, expected"):
        StoreAddress.parse(text)
