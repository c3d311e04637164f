"""What root opens in a folder that others may write: nothing leads it astray; and being told what becomes of files."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from rpccluster.system.files import FileWatch, open_own

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be led astray")

FLAGS = os.O_WRONLY | os.O_APPEND
OWNER = (65534, 65533)


def opened(path: Path, owner: tuple[int, int] | None = OWNER) -> os.stat_result:
    """What was opened."""
    descriptor = open_own(str(path), FLAGS, owner)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


@as_root
def test_what_was_just_made_changes_hands(tmp_path: Path) -> None:
    """And keeps its owner when it is opened again."""
    for _ in range(2):
        found = opened(tmp_path / "log")
        assert (found.st_uid, found.st_gid) == OWNER


@as_root
def test_what_was_there_keeps_its_owner(tmp_path: Path) -> None:
    """Root's file stays root's, a device stays a device."""
    (tmp_path / "log").write_text("")
    assert opened(tmp_path / "log").st_uid == 0
    before = os.stat(os.devnull)
    assert opened(Path(os.devnull)).st_uid == before.st_uid


@as_root
def test_no_link_is_followed(tmp_path: Path) -> None:
    """Neither to a file nor to where one could be made."""
    (tmp_path / "secret").write_text("")
    for target in ("secret", "nothing"):
        (tmp_path / "log").symlink_to(tmp_path / target)
        with pytest.raises(OSError, match="symbolic link") as raised:
            opened(tmp_path / "log")
        assert raised.value.filename == str(tmp_path / "log")
        (tmp_path / "log").unlink()
    assert not (tmp_path / "nothing").exists()
    assert (tmp_path / "secret").stat().st_uid == 0


@as_root
@pytest.mark.parametrize("owner", [OWNER, None])
def test_a_strangers_file_is_refused(tmp_path: Path, owner: tuple[int, int] | None) -> None:
    """Whose it is, and whose it should be, is told."""
    (tmp_path / "log").write_text("")
    os.chown(tmp_path / "log", 4711, 4711)
    expected = "0 or 65534" if owner else "0"
    with pytest.raises(PermissionError, match=f"found the owner 4711, expected {expected}:"):
        opened(tmp_path / "log", owner)


@as_root
def test_a_file_of_roots_with_another_name_is_refused(tmp_path: Path) -> None:
    """A hard link into the folder is a link, too."""
    (tmp_path / "secret").write_text("")
    os.link(tmp_path / "secret", tmp_path / "log")
    with pytest.raises(PermissionError, match="second hard link"):
        opened(tmp_path / "log")


@as_root
def test_no_descriptor_is_left_by_a_refusal(tmp_path: Path) -> None:
    """However often it is tried."""
    (tmp_path / "log").write_text("")
    os.chown(tmp_path / "log", 4711, 4711)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(PermissionError):
        opened(tmp_path / "log")
    assert os.listdir("/proc/self/fd") == before


@as_root
def test_who_is_not_root_may_use_links(tmp_path: Path) -> None:
    """There is nothing to be gained by them."""
    tmp_path.chmod(0o777)
    folder = tmp_path
    while folder != folder.parent:
        if not os.stat(folder).st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o711)
        folder = folder.parent
    (tmp_path / "log").symlink_to(tmp_path / "made")
    os.seteuid(65534)
    try:
        assert opened(tmp_path / "log").st_uid == 65534
    finally:
        os.seteuid(0)
    assert (tmp_path / "made").exists()


def run(program: str) -> str:
    """What ``program`` prints, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_umask_holds_for_a_while() -> None:
    """And is put back whatever happens; None leaves the process's own."""
    program = (
        "import os; from rpccluster.system.files import umasked\n"
        "os.umask(0o22); seen = []\n"
        "def look(): mask = os.umask(0); os.umask(mask); seen.append(oct(mask))\n"
        "with umasked(0o77): look()\n"
        "with umasked(None): look()\n"
        "try:\n"
        "    with umasked(0): raise ValueError\n"
        "except ValueError: look()\n"
        "print(*seen)"
    )
    assert run(program) == "0o77 0o22 0o22"


# -- being told of changes


def is_told(watch: FileWatch) -> bool:
    told = bool(wait([watch], 0))
    watch.drain()
    return told


def test_what_becomes_of_files_is_told(tmp_path: Path) -> None:
    """Of those that are followed alone: others in their folder come and go unnoticed."""
    watch = FileWatch()
    followed, other = tmp_path / "followed", tmp_path / "other"
    followed.touch()
    assert watch.follow([str(followed)])
    other.touch()
    other.unlink()
    assert not is_told(watch)
    followed.rename(tmp_path / "elsewhere")
    assert is_told(watch)
    assert not is_told(watch)
    (tmp_path / "elsewhere").unlink()
    assert is_told(watch)
    watch.close()


def test_a_path_of_a_socket_is_followed_while_that_is_open(tmp_path: Path) -> None:
    """Its file is not deleted, it has a link less."""
    watch, path = FileWatch(), str(tmp_path / "it.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        assert watch.follow([path])
        os.unlink(path)
        assert is_told(watch)
    watch.close()


def test_the_move_of_the_folder_is_told(tmp_path: Path) -> None:
    """Nobody finds the file at its path then, though nothing has become of the file itself."""
    watch, folder = FileWatch(), tmp_path / "folder"
    folder.mkdir()
    (folder / "followed").touch()
    assert watch.follow([str(folder / "followed")])
    folder.rename(tmp_path / "elsewhere")
    assert is_told(watch)
    watch.close()


def test_what_cannot_be_followed_is_said(tmp_path: Path) -> None:
    """There is no such file, or nothing to follow it with; the others are followed all the same."""
    watch, there = FileWatch(), tmp_path / "there"
    there.touch()
    assert not watch.follow([str(tmp_path / "missing"), str(there)])
    there.unlink()
    assert is_told(watch)
    watch.close()
    watch.close()
    assert (watch.is_open, watch.follow([str(tmp_path)])) == (False, False)
