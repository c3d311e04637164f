"""The store in ZooKeeper: the promises of every store, and those of its own, against a real server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("kazoo", reason="the extra `zookeeper` is not installed")

from zookeeper_servers import ZooKeeper, zookeeper

from rpccluster.errors import StoreDown
from rpccluster.leading.address import StoreAddress
from rpccluster.leading.store import Store
from rpccluster.leading.zookeeper_store import ZooKeeperStore
from rpccluster.testing import wait_until
from tests.leading.store_promises import SESSION_SECONDS, MakeStore, StorePromises, stand

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeper]:
    """One server for all tests of this module."""
    with zookeeper(tmp_path_factory.mktemp("zookeeper")) as running:
        yield running


@pytest.fixture
def make(server: ZooKeeper) -> Iterator[MakeStore]:
    """Make stores upon a path of the test's own."""
    made: list[Store] = []
    path = f"/tests/path-{next(_numbers)}"

    def make_one(address: str, remembered: bytes = b"", **options: Any) -> Store:
        where = StoreAddress.parse(f"zookeeper://{server.address}{path}")
        store = ZooKeeperStore(where, options.pop("session", SESSION_SECONDS), [address], remembered, **options)
        made.append(store)
        wait_until(lambda: _is_connected(store), what="it is connected")
        return store

    yield make_one
    for store in made:
        store.close()


def _is_connected(store: ZooKeeperStore) -> bool:
    try:
        store.members()
    except StoreDown as error:
        return "cannot reach" not in str(error)
    return True


class TestZooKeeperStore(StorePromises):
    """All of it holds in ZooKeeper."""


def test_a_wrong_password_is_told_and_the_right_one_works(make: MakeStore) -> None:
    """The nodes belong to whoever knows the password; reading is free, so that clients find the members."""
    first = make("unix:///a", password="me:secret")
    assert first.attend().is_ours
    first.set_member("a", b"{}")
    for password in ("me:wrong", ""):
        other = make("unix:///b", password=password)
        with pytest.raises(StoreDown, match=r"may not use the nodes at zookeeper://.*password_file"):
            other.attend()
    assert make("unix:///c", password="me:secret").attend().leader == "unix:///a"
    assert make("unix:///d").members() == {"a": b"{}"}


def test_what_the_server_grants_is_told(make: MakeStore) -> None:
    """The least is two of its ticks."""
    store = make("unix:///a", session=0.1)
    store.attend()
    assert store.session_seconds == pytest.approx(0.4)


def test_a_server_that_is_away_is_told_and_found_again(make: MakeStore, server: ZooKeeper) -> None:
    """The lead stays with its session, if the server is back within it."""
    store = make("unix:///a", session=10)
    lead = store.attend()
    server.kill()
    with pytest.raises(StoreDown):
        store.attend()
    server.start()

    def is_back() -> bool:
        try:
            return store.attend().token == lead.token
        except StoreDown:
            return False

    wait_until(is_back, what="the lead goes on")


def test_nobody_at_the_address_is_told() -> None:
    """The store can be made without a server, and is used once that is there."""
    store = ZooKeeperStore(StoreAddress.parse("zookeeper://127.0.0.1:1/p"), 2, ["unix:///a"])
    with pytest.raises(StoreDown, match=r"cannot reach zookeeper://127.0.0.1:1/p"):
        store.attend()
    store.close()


def test_a_node_of_the_session_whose_making_was_not_answered_is_found(make: MakeStore) -> None:
    """It would stand in the way of its own cluster."""
    first = make("unix:///a")
    lead = first.attend()
    number, password = first.remembered.split(b", ")[:2]
    first.close()
    successor = make("unix:///a", remembered=number + b", " + password + b', ""]')
    assert stand(successor, leads=True).token == lead.token
