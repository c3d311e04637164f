"""Folders by the names that users have for them, and a program that is launched again as it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rpccluster.system.processes import launch

CHECKOUT = Path(launch.__file__).resolve().parent.parent.parent


@pytest.fixture
def releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two releases, and ``current``, which is the first one."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "current").symlink_to("one")
    monkeypatch.chdir(tmp_path / "current")
    monkeypatch.setenv("PWD", str(tmp_path / "current"))
    return tmp_path


def test_a_symlink_stays_one(releases: Path) -> None:
    """As the shell names the folder, if that is where this process runs."""
    assert launch.start_folder() == str(releases / "current")


@pytest.mark.parametrize("named", ["", "two", "relative", "/no/such/folder"])
def test_another_folders_name_is_none(releases: Path, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts a process in a folder need not tell the environment."""
    monkeypatch.setenv("PWD", str(releases / named) if named == "two" else named)
    assert launch.start_folder() == str(releases / "one")


def test_a_folder_that_is_gone_keeps_its_name(releases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing fails for that; what needs the folder will."""
    (releases / "one").rmdir()
    assert launch.start_folder() == str(releases / "current")
    monkeypatch.delenv("PWD")
    assert launch.start_folder() == "/"


def test_entering_a_folder_names_it(releases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is gone changes nothing."""
    (releases / "current").unlink()
    (releases / "current").symlink_to("two")
    launch.enter(str(releases / "current"))
    assert launch.start_folder() == os.environ["PWD"] == str(releases / "current")
    assert os.getcwd() == str(releases / "two")
    with pytest.raises(OSError, match="No such file"):
        launch.enter(str(releases / "three"))
    assert os.environ["PWD"] == str(releases / "current")


def launched(flags: list[str], folder: Path, program: str) -> list[object]:
    """What an interpreter with ``flags`` would exec."""
    command = [
        sys.executable,
        *flags,
        "-c",
        f"import json; from rpccluster.system.processes import launch\nprint(json.dumps({program}))",
    ]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=True)
    found: list[object] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["-O"],
        ["-OO", "-B", "-s"],
        ["-Wignore::UserWarning", "-Werror::BytesWarning"],
        ["-Xutf8", "-Xpycache_prefix=/tmp/no such folder"],
    ],
    ids=str,
)
def test_flags_of_the_interpreter_survive(flags: list[str], tmp_path: Path) -> None:
    """Those that one was started with are those that the next one is started with."""
    found = launched(flags, tmp_path, "launch.interpreter_flags()")
    assert sorted(map(str, found)) == sorted(flags)
    assert launched([*map(str, found)], tmp_path, "launch.interpreter_flags()") == found


def test_nothing_of_the_folder_is_imported(tmp_path: Path) -> None:
    """Neither in the place of Python's own modules, nor of others'."""
    for name in ("calendar", "runpy", "click", "msgpack", "types"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('of the folder')\n")
    command = launch.program(["--version"], str(tmp_path), sys.executable)
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("rpccluster ")


def test_a_package_that_lies_in_the_folder_is_found(tmp_path: Path) -> None:
    """A checkout that is run where it lies: it has to be searched, after all the rest."""
    command = launch.program(["--version"], str(CHECKOUT), "/no/such/python")
    assert command[0] == sys.executable
    assert f"sys.path.append({str(CHECKOUT)!r})" in " ".join(command)


def test_an_interpreter_that_lies_in_a_release_is_followed(releases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its environment may be part of the release."""
    current = str(releases / "current")
    assert launch.interpreter(current) == sys.executable
    monkeypatch.setattr(sys, "executable", str(releases / "one" / "bin" / "python"))
    assert launch.interpreter(current) == f"{current}/bin/python"
    assert launch.interpreter(str(releases / "two")) == sys.executable
    (releases / "one" / "bin").mkdir()
    (releases / "one" / "bin" / "python").touch()
    assert launch.program([], current, f"{current}/bin/python")[0] == f"{current}/bin/python"
