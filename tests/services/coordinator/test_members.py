"""This cluster's entry in the registry: made, kept by a successor, removed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rpccluster.errors import StoreDown
from rpccluster.ipc.fdpass import memory_file
from rpccluster.leading.file_store import FileStore
from rpccluster.leading.registry import SERVING, Entry, encode_entry, read_entry
from rpccluster.services.coordinator.members import Members
from rpccluster.services.coordinator.memory import Memory
from rpccluster.version import __version__

HERE = "tcp://10.0.0.1:1"


class Rig:
    """One cluster's coordinators, one after another, over one store in a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.memory = memory_file(name="test")
        self.stores: list[FileStore] = []

    def coordinator(self) -> tuple[Members, FileStore]:
        """The next coordinator's members and store, of one session."""
        memory = Memory(self.memory)
        store = FileStore(self.path, 10.0, [HERE], memory.recall("store"))
        memory.keep("store", store.remembered)
        self.stores.append(store)
        access: Any = SimpleNamespace(call=lambda method, *arguments: method(*arguments))
        return Members(access, memory, [HERE]), store

    def listed(self) -> dict[str, Entry]:
        return {name: read_entry(value) for name, value in self.stores[-1].members().items()}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "lead")
    yield made
    for store in made.stores:
        store.close()


def test_it_is_listed_as_long_as_the_master_says(rig: Rig) -> None:
    """Nothing is done before the first word."""
    members, store = rig.coordinator()
    members.turn(store)
    assert rig.listed() == {}
    members.want(SERVING, 5.0)
    members.turn(store)
    assert list(rig.listed().values()) == [Entry((HERE,), __version__, SERVING, 5.0)]
    members.want("", 5.0)
    members.turn(store)
    assert rig.listed() == {}


def test_a_successor_goes_on_with_the_entry(rig: Rig) -> None:
    """Readers see no change; it also removes what the one before has made."""
    members, store = rig.coordinator()
    members.want(SERVING, 5.0)
    members.turn(store)
    before = rig.listed()
    members, store = rig.coordinator()
    members.want(SERVING, 5.0)
    members.turn(store)
    assert rig.listed() == before
    members, store = rig.coordinator()
    members.want("", 5.0)
    members.turn(store)
    assert rig.listed() == {}


def test_what_has_changed_has_a_new_name(rig: Rig) -> None:
    """After an upgrade, say: whoever has read the former entry reads the new one."""
    members, store = rig.coordinator()
    members.want(SERVING, 5.0)
    members.turn(store)
    (before,) = rig.listed()
    members, store = rig.coordinator()
    members.want(SERVING, 6.0)
    members.turn(store)
    ((name, entry),) = rig.listed().items()
    assert name != before and entry.started_at == 6.0


def test_two_clusters_with_one_address_are_told(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Clients cannot tell them apart; a rubbish entry is none of ours."""
    members, store = rig.coordinator()
    store.set_member("theirs", encode_entry(Entry((HERE,), "1", SERVING, 1.0)))
    store.set_member("rubbish", b'{"addresses": 7}')
    with caplog.at_level(logging.WARNING):
        members.want(SERVING, 5.0)
        members.turn(store)
    assert [HERE in line for line in caplog.messages] == [True]
    assert len(store.members()) == 3


def test_what_may_not_be_listed_is_told_and_tried_again(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Once in a while; the lead does not depend on it."""
    members, store = rig.coordinator()
    set_member, asked = store.set_member, []

    def refuse(name: str, value: bytes) -> None:
        asked.append(name)
        raise StoreDown("no permission")

    store.set_member = refuse  # type: ignore[method-assign]
    members.want(SERVING, 5.0)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            members.turn(store)
    assert len(asked) == 3 and ["no permission" in line for line in caplog.messages] == [True]
    store.set_member = set_member  # type: ignore[method-assign]
    members.turn(store)
    assert [entry.started_at for entry in rig.listed().values()] == [5.0]
