"""Which module a service is loaded from, when several folders have one of that name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpccluster.child.settings import ServiceSettings
from rpccluster.live_settings import NO_SETTINGS
from rpccluster.worker.service.loading import code_files, load_service


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Two folders with a module ``wares`` each, and the current one with another."""
    made = []
    for name in ("first", "second", "current"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "wares.py").write_text(f"what = {name!r}\n")
        made.append(str(tmp_path / name))
    monkeypatch.chdir(made.pop())
    monkeypatch.delenv("PWD", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield made
    sys.modules.pop("wares", None)


@pytest.mark.parametrize("is_reversed", [False, True])
@pytest.mark.parametrize("places", [[], [0], [1], [0, 1], [1, 0]], ids=str)
def test_the_folders_stand_first_in_their_order(folders: list[str], places: list[int], is_reversed: bool) -> None:
    """Wherever they stood in the path already, by PYTHONPATH for instance."""
    sys.path[:0] = [folders[place] for place in places]
    wanted = folders[::-1] if is_reversed else folders
    assert load_service("wares:what", tuple(wanted), ServiceSettings(NO_SETTINGS)) == Path(wanted[0]).name
    assert sys.path[:3] == [*wanted, str(Path(wanted[0]).with_name("current"))]
    assert [sys.path.count(folder) for folder in wanted] == [1, 1]


def test_the_current_folder_stands_behind_them(folders: list[str]) -> None:
    """And before everything else, under the name it has."""
    assert load_service("wares:what", (), ServiceSettings(NO_SETTINGS)) == "current"


def test_the_code_files_are_those_of_new_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there before, what is built in and what has no source is not the service's code."""
    for name in ("watched_one", "watched_two"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / f"{name}.py").write_text("import math, watched_two\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    known = frozenset(sys.modules)
    importlib.import_module("watched_one")
    monkeypatch.setitem(sys.modules, "odd", object())  # type: ignore[arg-type]
    assert code_files(known) == [str(tmp_path / f"{name}.py") for name in ("watched_one", "watched_two")]
    assert code_files(frozenset(sys.modules)) == []
