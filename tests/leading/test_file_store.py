"""The store in a file: the promises of every store, and those of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpccluster.errors import StoreDown
from rpccluster.leading import file_store
from rpccluster.leading.file_store import FileStore
from rpccluster.leading.store import Store
from tests.leading.store_promises import SESSION_SECONDS, MakeStore, StorePromises


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeStore]:
    """Make stores upon one file."""
    made: list[Store] = []

    def make_one(address: str, remembered: bytes = b"") -> Store:
        made.append(FileStore(str(tmp_path / "lead"), SESSION_SECONDS, [address], remembered))
        return made[-1]

    yield make_one
    for store in made:
        store.close()


class TestFileStore(StorePromises):
    """All of it holds in a file."""


def test_a_boot_of_the_machine_ends_the_lease_and_keeps_the_token(
    make: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of leases begins anew with a boot, so what it says of another one means nothing."""
    lead = make("unix:///a").attend()
    monkeypatch.setattr(file_store, "_boot_id", lambda: "another boot")
    assert make("unix:///b").attend().token == lead.token + 1


@pytest.mark.parametrize("rubbish", [b"{", b"[]", b'{"token": "x"}', b"\0" * 100], ids=["cut", "list", "text", "zeros"])
def test_rubbish_is_never_replaced(make: MakeStore, tmp_path: Path, rubbish: bytes) -> None:
    """The token would go back."""
    (tmp_path / "lead.7").write_bytes(rubbish)
    with pytest.raises(StoreDown, match=r"found rubbish in .*/lead\.7, which says who leads"):
        make("unix:///a").attend()
    assert (tmp_path / "lead.7").read_bytes() == rubbish


def test_rubbish_among_the_members_is_replaced(make: MakeStore, tmp_path: Path) -> None:
    """Each cluster writes its own entry again."""
    (tmp_path / "lead.json").write_bytes(b"rubbish")
    store = make("unix:///a")
    store.set_member("a", b"{}")
    assert store.members() == {"a": b"{}"}


def test_an_entry_that_somebody_has_written_by_hand_stays(make: MakeStore, tmp_path: Path) -> None:
    """It has no end."""
    (tmp_path / "lead.json").write_text('{"members": {"hand": {"addresses": ["unix:///h"]}}}')
    store = make("unix:///a")
    store.set_member("a", b"{}")
    assert json.loads(store.members()["hand"]) == {"addresses": ["unix:///h"]}


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines do not share a clock."""
    monkeypatch.setattr(file_store, "file_system_of", lambda path: "nfs4")
    with pytest.raises(StoreDown, match="on the file system nfs4, expected one of this machine"):
        FileStore(str(tmp_path / "lead"), 2, [])


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    """With its path and the reason."""
    store = FileStore(str(tmp_path / "nowhere" / "lead"), 2, [])
    with pytest.raises(StoreDown, match=r"cannot use .*/nowhere/lead: No such file or directory"):
        store.attend()


def test_what_killed_processes_have_prepared_is_swept(make: MakeStore, tmp_path: Path) -> None:
    """By whoever takes the lead."""
    (tmp_path / ".lead.feedface.new").write_bytes(b"half")
    store = make("unix:///a")
    store.attend()
    store.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lead", "lead.1"]
    assert json.loads((tmp_path / "lead").read_text())["addresses"] == ["unix:///a"]
