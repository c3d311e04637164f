"""Paths of Unix sockets: ours are told from others', whoever owns the folder and whatever they put there."""

from __future__ import annotations

import gc
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpccluster.master.resources.unix_paths import bind_unix, mark_at, set_mode, unlink_ours
from rpccluster.system.processes.identity import Identity

NOBODY = Identity(65534, 65533, None)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be led astray")


@pytest.fixture
def bound(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket at ``x`` that nobody listens at."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "x"))
        yield sock


def test_the_mark_is_that_of_the_path(tmp_path: Path) -> None:
    """And nothing else at that path has it."""
    path = str(tmp_path / "x")
    sock, mark = bind_unix(path, 0o600, None)
    assert mark_at(path) == mark == (os.lstat(path).st_dev, os.lstat(path).st_ino)
    os.unlink(path)
    assert mark_at(path) is None
    other, other_mark = bind_unix(path, 0o640, None)  # while the first is open its inode is given to no other
    assert other_mark != mark
    set_mode(path, mark, 0o666)
    unlink_ours(path, mark)
    assert stat.S_IMODE(os.lstat(path).st_mode) == 0o640
    set_mode(path, other_mark, 0o666)
    assert stat.S_IMODE(os.lstat(path).st_mode) == 0o666
    unlink_ours(path, other_mark)
    assert not os.path.lexists(path)
    sock.close()
    other.close()


def test_what_is_no_socket_has_no_mark(tmp_path: Path, bound: socket.socket) -> None:
    """A file, and a link to a socket; neither is changed nor unlinked."""
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "x")
    for name in ("file", "link"):
        path = str(tmp_path / name)
        assert mark_at(path) is None
        before = os.stat(path).st_mode
        set_mode(path, mark_at(str(tmp_path / "x")), 0o777)
        unlink_ours(path, None)
        assert os.stat(path).st_mode == before
        with pytest.raises(OSError, match="no socket"):
            bind_unix(path, 0o600, None)


@as_root
def test_only_what_was_just_bound_changes_hands(tmp_path: Path) -> None:
    """It is the account's, with the right mode."""
    sock, _ = bind_unix(str(tmp_path / "x"), 0o660, NOBODY)
    found = os.lstat(tmp_path / "x")
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (65534, 65533, 0o660)
    sock.close()


@as_root
def test_a_strangers_stale_socket_is_refused(tmp_path: Path, bound: socket.socket) -> None:
    """The account's own, as a kill -9 leaves it, is not."""
    path = str(tmp_path / "x")
    os.chown(path, 4711, 4711)
    with pytest.raises(PermissionError, match="found the owner 4711, expected 0 or 65534"):
        bind_unix(path, 0o600, NOBODY)
    os.chown(path, 65534, 65533)
    bind_unix(path, 0o600, NOBODY)[0].close()


@pytest.mark.parametrize("call", ["chown", "open"])
def test_a_bind_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Neither a path nor a descriptor."""

    def refuse(*arguments: object) -> None:
        raise OSError("refused")

    monkeypatch.setattr(os, call, refuse)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    gc.collect()  # what other tests left is not to go meanwhile
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="refused"):
        bind_unix(str(tmp_path / "x"), 0o600, NOBODY)
    assert os.listdir(tmp_path) == []
    assert os.listdir("/proc/self/fd") == before


def test_who_does_not_accept_is_there_all_the_same(tmp_path: Path) -> None:
    """A backlog that is full: that is not waited for."""
    path = str(tmp_path / "x")
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as caller:
        busy.bind(path)
        busy.listen(0)
        caller.connect(path)
        with pytest.raises(OSError, match="in use"):
            bind_unix(path, 0o600, None)
