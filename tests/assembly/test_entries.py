"""Each kind of child finds its code, in the child alone."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from rpccluster.assembly.entries import ENTRIES, load
from tests.child.born import made_up


@pytest.mark.parametrize("module", ENTRIES.values())
def test_the_code_of_every_kind_is_there(module: str) -> None:
    """It is found without being imported: some of it may only be in a child."""
    assert importlib.util.find_spec(module) is not None


def test_a_kind_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its module's ``load`` gets the assignment, in the folder that the master was started in."""
    module = ModuleType("made_up_kind")
    module.load = lambda assignment: lambda: (assignment.slot, os.getcwd())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_up_kind", module)
    monkeypatch.setitem(ENTRIES, "made-up", "made_up_kind")
    monkeypatch.chdir("/")
    monkeypatch.setenv("PWD", "/")
    with made_up() as (assignment, _):
        assert load(str(tmp_path), assignment)() == (3, str(tmp_path))
        assert load(str(tmp_path / "gone"), replace(assignment, slot=5))() == (5, str(tmp_path))
