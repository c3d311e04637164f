"""The file of keys: its lines, and every fault of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rpccluster.config.authkeys import KeyFile, read_keys

KEY = "k" * 16


def written(path: Path, text: str, mode: int = 0o600) -> KeyFile:
    """Read a file with ``text``."""
    path.write_text(text)
    path.chmod(mode)
    return read_keys(str(path))


def test_a_line_is_a_key_or_a_name_and_a_key(tmp_path: Path) -> None:
    """A name may stand twice; empty lines do not matter; nothing that is shown has a key in it."""
    found = written(tmp_path / "keys", f"{KEY}\n\nweb {KEY}1\r\nweb {KEY}2\n")
    assert found.problem == ""
    assert found.keys == (("default", KEY.encode()), ("web", f"{KEY}1".encode()), ("web", f"{KEY}2".encode()))
    assert str(found) == str(tmp_path / "keys") and KEY not in repr(found)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "found 0 keys"),
        (f"web {KEY} more\n", "found 3 words in line 1"),
        ("short\n", "found a key of 5 bytes in line 1"),
        (f"a,b {KEY}\n", "found the name 'a,b' in line 1"),
        (f"{KEY}\n" * 65, "found 65 keys"),
        ("x" * 70_000, "found more than 65536 bytes"),
    ],
)
def test_a_faulty_file_is_told(tmp_path: Path, text: str, problem: str) -> None:
    """Each fault says what was found and what was expected, and never a key."""
    found = written(tmp_path / "keys", text)
    assert problem in found.problem and "expected" in found.problem
    assert KEY not in found.problem and not found.keys


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o604, 0o700])
def test_a_file_that_others_may_read_is_a_fault(tmp_path: Path, mode: int) -> None:
    """A key that others can read is none."""
    assert "expected mode 0600" in written(tmp_path / "keys", KEY, mode).problem


def test_no_file_is_a_fault(tmp_path: Path) -> None:
    """Neither a folder, nor a pipe, nor nothing."""
    assert "Is a directory" in read_keys(str(tmp_path)).problem
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "which is no file" in read_keys(str(tmp_path / "pipe")).problem
    assert "No such file" in read_keys(str(tmp_path / "none")).problem
