"""Where a control socket lies that nobody has named, and how the living ones are found."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rpccluster import control_path


class Home:
    """A user's folders for default control sockets."""

    def __init__(self, folder: Path, at_the_end: ExitStack) -> None:
        self.runtime = folder / "run"
        self.temporary = folder / "tmp"
        self._at_the_end = at_the_end
        for each in (self.runtime, self.temporary):
            each.mkdir()

    def listen(self, name: str) -> str:
        """Listen as a master does; return the path."""
        path = self.bind(name)
        sock = socket.socket(socket.AF_UNIX)
        os.unlink(path)
        sock.bind(path)
        sock.listen(1)
        self._at_the_end.callback(sock.close)
        return path

    def bind(self, name: str) -> str:
        """Leave a socket behind as a killed master does; return the path."""
        folder = control_path.folders()[0]
        control_path.make_folder(folder)
        path = os.path.join(folder, name)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path)
        return path


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """Both folders are there, in an environment that names them; a path that pytest makes may be too long."""
    with tempfile.TemporaryDirectory(prefix="rpc-", dir="/tmp") as folder, ExitStack() as at_the_end:
        made = Home(Path(folder), at_the_end)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(made.runtime))
        monkeypatch.setenv("TMPDIR", str(made.temporary))
        yield made


def test_the_folders_best_first(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session's own, then one of this user below the temporary folder."""
    own = f"rpccluster-{os.geteuid()}"
    assert control_path.folders() == [f"{home.runtime}/rpccluster", f"{home.temporary}/{own}", f"/tmp/{own}"]
    for useless in ("", "run", "/nowhere/at/all"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", useless)
        assert control_path.folders() == [f"{home.temporary}/{own}", f"/tmp/{own}"]
    monkeypatch.delenv("TMPDIR")
    assert control_path.folders() == [f"/tmp/{own}"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_the_folder_of_another_user_is_none(home: Home) -> None:
    """As $XDG_RUNTIME_DIR is after `su`: a folder of ours in it would be in the other user's way."""
    os.chown(home.runtime, 12345, 12345)
    assert control_path.folders()[0].startswith(f"{home.temporary}/")


def test_the_folder_is_made_for_this_user_alone(home: Home) -> None:
    """Whatever the umask; once it is there it may be used again."""
    folder = control_path.folders()[1]
    before = os.umask(0)
    try:
        control_path.make_folder(folder)
    finally:
        os.umask(before)
    assert os.stat(folder).st_mode & 0o777 == 0o700
    control_path.make_folder(folder)


def test_a_folder_with_the_group_of_the_one_above_is_private(home: Home) -> None:
    """A new folder inherits that bit, as below a temporary folder that a group shares."""
    home.runtime.chmod(0o2700)
    path = home.listen("a-1.sock")
    assert os.stat(os.path.dirname(path)).st_mode & 0o7777 == 0o2700
    assert path in control_path.living()


@pytest.mark.parametrize("case", ["wide", "link", "file", "foreign"])
def test_a_folder_that_others_can_reach_is_refused(home: Home, case: str) -> None:
    """Anybody may make that folder below the temporary one first; no command trusts it, either."""
    folder = Path(control_path.folders()[0])
    if case == "foreign" and os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    if case == "link":
        (home.runtime / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to("elsewhere")
    elif case == "file":
        folder.write_text("")
        folder.chmod(0o700)
    else:
        home.listen("a-1.sock")
        folder.chmod(0o750 if case == "wide" else 0o700)
    if case == "foreign":
        os.chown(folder, 12345, 12345)
    with pytest.raises(OSError, match="expected a folder of uid"):
        control_path.make_folder(str(folder))
    assert not [path for path in control_path.living() if path.startswith(str(home.runtime))]


@pytest.mark.parametrize("name", ["shop", "a b/ü", "x" * 300, "."])
def test_the_name_of_a_socket(name: str) -> None:
    """It is one of a file, whatever the cluster is called, and tells two files apart."""
    one, other = (control_path.socket_name(name, path) for path in ("/srv/a.ini", "/srv/b.ini"))
    assert one != other and one == control_path.socket_name(name, "/srv/a.ini")
    assert "/" not in one and one.isascii() and len(one) < 60 and one.endswith(".sock")


def test_the_living_are_found(home: Home) -> None:
    """All, or those of one file whatever they are called; what a killed master has left is none."""
    name = control_path.socket_name
    one, again = home.listen(name("one", "/a.ini")), home.listen(name("renamed", "/a.ini"))
    other = home.listen(name("one", "/b.ini"))
    home.bind(name("dead", "/a.ini"))
    assert sorted(set(control_path.living()) & {one, again, other}) == sorted([one, again, other])
    assert sorted(control_path.living("/a.ini")) == sorted([one, again])
    assert control_path.living("/c.ini") == []


def test_a_busy_master_lives(home: Home) -> None:
    """One that is stopped, and whose backlog is full, is found, and its socket stays."""
    path = home.listen("busy-1.sock")
    with ExitStack() as callers:
        try:
            while True:
                caller = callers.enter_context(socket.socket(socket.AF_UNIX))
                caller.setblocking(False)
                caller.connect(path)
        except BlockingIOError:
            pass
        os.utime(path, (1, 1))
        control_path.clear_stale(os.path.dirname(path))
        assert path in control_path.living()


def test_what_the_dead_have_left_is_removed(home: Home) -> None:
    """But nothing so young that its master may not listen yet."""
    living, dead, young = home.listen("living-1.sock"), home.bind("dead-1.sock"), home.bind("young-1.sock")
    for path in (living, dead):
        os.utime(path, (1, 1))
    control_path.clear_stale(os.path.dirname(living))
    assert sorted(os.listdir(os.path.dirname(living))) == [os.path.basename(path) for path in (living, young)]
