"""The entry points of the installed packages: read once, and again when something was installed."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from rpccluster.child import entry_points as tested


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which alone is searched."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "missing")])
    return tmp_path


def install(folder: Path, name: str) -> None:
    """Let a package there have one entry point, whose group is named like it."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{name}]\npoint = os:getpid\n")
    os.utime(folder, ns=(0, len(name)))  # another time than before, however coarse the clock of the files is


def names(group: str) -> list[str]:
    everything: Any = tested.entry_points()
    chosen = tested.chosen_by_group(everything)
    found = chosen().get(group, ()) if sys.version_info < (3, 10) else chosen(group=group)
    return [point.name for point in found]


def test_what_is_installed_later_is_found(folder: Path) -> None:
    """Without a start of the master."""
    install(folder, "one")
    assert names("one") == ["point"]
    assert names("other") == []
    install(folder, "other")
    assert names("other") == ["point"]


def test_nothing_is_read_twice(folder: Path) -> None:
    """As long as no folder changes."""
    install(folder, "one")
    first = tested.entry_points()
    assert tested.entry_points() is first
    install(folder, "other")
    assert tested.entry_points() is not first


@pytest.mark.skipif(sys.version_info < (3, 10), reason="nothing is chosen there")
def test_the_choice_is_that_of_the_standard_library(folder: Path) -> None:
    """By group, by name, or everything."""
    install(folder, "one")
    choose: Any = tested.chosen_by_group(tested.entry_points())
    for wanted in ({"group": "one"}, {"group": "none"}, {"name": "point"}, {"group": "one", "name": "none"}):
        assert list(choose(**wanted)) == list(metadata.entry_points(**wanted))  # type: ignore[arg-type]
    assert choose() is tested.entry_points()
