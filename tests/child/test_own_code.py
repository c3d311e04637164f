"""The package's own code is what it was when it was remembered, whatever becomes of the files."""

from __future__ import annotations

import importlib
import logging
import shutil
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

import pytest

from rpccluster.child.own_code import OwnCode


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A package that is imported, but for its modules."""
    folder = tmp_path / "victuals"
    (folder / "fruit").mkdir(parents=True)
    for name in ("__init__", "bread", "broken", "fruit/__init__", "fruit/apple"):
        (folder / f"{name}.py").write_text(f"what = {name!r}\n")
    (folder / "fruit" / "apple.py").write_text("from victuals import bread\nfrom . import what as whose\n")
    (folder / "broken.py").write_text("this is no Python\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = list(sys.meta_path)
    yield importlib.import_module("victuals")
    sys.meta_path[:] = before
    for name in [name for name in sys.modules if name.partition(".")[0] == "victuals"]:
        del sys.modules[name]


def folder_of(package: ModuleType) -> Path:
    return Path(str(package.__file__)).parent


def test_modules_are_imported_as_they_were(package: ModuleType) -> None:
    """Though their files are another version's, or gone."""
    OwnCode(package).answer_for_it()
    assert "victuals.bread" not in sys.modules
    folder = folder_of(package)
    (folder / "bread.py").write_text("raise RuntimeError('the new version')\n")
    shutil.rmtree(folder / "fruit")
    apple = importlib.import_module("victuals.fruit.apple")
    assert (apple.bread.what, apple.whose) == ("bread", "fruit/__init__")
    assert apple.__file__ == str(folder / "fruit" / "apple.py")
    assert sys.modules["victuals.fruit"].__path__ == [str(folder / "fruit")]


def test_what_could_not_be_read_fails_when_it_is_imported(package: ModuleType) -> None:
    """As without it."""
    OwnCode(package).answer_for_it()
    with pytest.raises(SyntaxError):
        importlib.import_module("victuals.broken")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("victuals.meat")


def test_an_extension_module_is_left_to_python(package: ModuleType) -> None:
    """It has no code to be remembered. This one is none, which Python says."""
    (folder_of(package) / f"stone{EXTENSION_SUFFIXES[0]}").write_bytes(b"")
    OwnCode(package).answer_for_it()
    with pytest.raises(ImportError, match="stone"):
        importlib.import_module("victuals.stone")


def test_each_change_on_disk_is_told_once(package: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is another, or gone."""
    own_code, folder = OwnCode(package), folder_of(package)

    def told() -> int:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            own_code.tell_of_changes()
            own_code.tell_of_changes()
        return caplog.text.count("The code of victuals on disk has changed")

    assert told() == 0
    (folder / "bread.py").write_text("what = 'a roll'\n")
    assert told() == 1
    (folder / "bread.py").unlink()
    assert told() == 1
    assert told() == 0
