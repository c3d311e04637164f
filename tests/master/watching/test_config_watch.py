"""Files that are watched for `reload_on_change`: which changes are seen, and when a reload is due."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Callable

import pytest

from rpccluster.config import Sources, load
from rpccluster.master.cluster import Cluster
from rpccluster.master.loop import Loop
from rpccluster.master.watching.config_watch import DEAF_SECONDS, IDLE_SECONDS, QUIET_SECONDS, ConfigWatch
from rpccluster.system.files import FolderWatch, folders_to

from ..made_up import cluster

TEXT = "[cluster]\nservice = a:b\nreload_on_change = true\ninclude = conf.d/*.ini\n[settings]\nprice = {}\n"


class Watched:
    """A cluster whose files are watched, under a made-up clock."""

    def __init__(self, path: Path, make_watch: Callable[[], FolderWatch] = FolderWatch) -> None:
        self.path = path
        self.now = 100.0
        self.loop = Loop()
        self.cluster: Cluster = cluster()
        self.load()
        self.watch = ConfigWatch(self.cluster, self.loop, make_watch)
        assert not self.turn()

    def load(self) -> None:
        """Put in force what the files say now, as a reload does."""
        self.cluster.configuration = load(Sources(str(self.path)))

    def turn(self) -> bool:
        self.loop.turn(0)
        return self.watch.turn(self.now, may_reload=True)

    def is_due(self, seconds: float = 0.0) -> bool:
        """Whether a reload is due at once, or when that time is over, with all wake-ups between."""
        end = self.now + seconds
        while not self.turn():
            if self.watch.wake_at > end:
                self.now = end
                return self.turn()
            self.now = max(self.now, self.watch.wake_at)
        return True

    def price(self, number: int) -> None:
        self.path.write_text(TEXT.format(number))


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    """A file, and a folder for more."""
    (tmp_path / "conf.d").mkdir()
    path = tmp_path / "shop.ini"
    path.write_text(TEXT.format(1))
    return Watched(path)


def test_a_hundred_changes_are_one_reload_of_the_last(watched: Watched) -> None:
    """It is due a second after the last one. Then nothing is, also if the file was not taken."""
    for number in range(100):
        watched.price(number + 2)
        watched.now += 0.01
        assert not watched.turn()
    assert not watched.is_due(QUIET_SECONDS - 0.05)
    assert watched.is_due(0.2)
    assert not watched.is_due(60.0)
    watched.price(7)
    assert watched.is_due(2.0)


def test_what_is_known_is_no_change(watched: Watched) -> None:
    """What another reload has read, what this master has written, and what is as it was."""
    watched.price(2)
    assert not watched.turn()
    watched.load()
    assert not watched.is_due(60.0)
    watched.price(3)
    running = watched.cluster.configuration
    watched.cluster.configuration = running.with_content(str(watched.path), watched.path.read_bytes())
    assert not watched.is_due(60.0)
    watched.price(4)
    watched.now += 0.5
    watched.price(3)
    assert not watched.is_due(60.0)


def test_a_log_beside_it_wakes_seldom_and_is_no_change(watched: Watched) -> None:
    """The kernel tells of it when it is closed; the files are read at most every tenth of a second."""
    log = watched.path.with_name("shop.log")
    for _ in range(10):
        log.write_text("a line")
        watched.now += 0.001
        assert not watched.turn()
    assert not watched.is_due(5.0)


@pytest.mark.parametrize("how", ["rename", "removed and written", "link", "touch", "mode"])
def test_ways_to_save_a_file(watched: Watched, how: str) -> None:
    """As editors do. Another date or mode is no change."""
    new = watched.path.with_name("new")
    new.write_text(TEXT.format(2))
    if how == "rename":
        new.rename(watched.path)
    elif how == "removed and written":
        watched.path.unlink()
        assert not watched.turn()
        new.rename(watched.path)
    elif how == "link":
        watched.path.unlink()
        watched.path.symlink_to(new)
    elif how == "touch":
        os.utime(watched.path)
    else:
        watched.path.chmod(0o600)
    assert watched.is_due(2.0) == (how not in ("touch", "mode"))


def test_files_that_are_included(watched: Watched) -> None:
    """One that comes, changes, and goes, is a change; one that no pattern matches is none."""
    one = watched.path.parent / "conf.d" / "one.ini"
    for content in ("[plugin:one]\ncommand = true\n", "[plugin:one]\ncommand = false\n"):
        one.write_text(content)
        assert watched.is_due(2.0)
        watched.load()
    one.with_suffix(".txt").write_text("nothing")
    assert not watched.is_due(5.0)
    one.unlink()
    assert watched.is_due(2.0)


def test_a_faulty_file_that_includes_another_is_followed(watched: Watched) -> None:
    """So that mending the other is a change, although the first is not in force."""
    other = watched.path.with_name("other.ini")
    other.write_text("[plugin:")
    watched.path.write_text(TEXT.replace("conf.d/*.ini", "other.ini"))
    assert watched.is_due(2.0)
    assert not watched.is_due(60.0)
    other.write_text("[plugin:one]\ncommand = true\n")
    assert watched.is_due(2.0)


def test_the_links_of_an_orchestrator(tmp_path: Path) -> None:
    """It swaps the link ``..data`` that all others lead through, and removes the folder of before; twice in a row."""
    mount = tmp_path / "mount"
    for number in (1, 2, 3):
        (mount / f"..{number}" / "conf.d").mkdir(parents=True)
        (mount / f"..{number}" / "shop.ini").write_text(TEXT.format(number))
    (mount / "..data").symlink_to("..1")
    (mount / "shop.ini").symlink_to("..data/shop.ini")
    path = tmp_path / "shop.ini"
    path.symlink_to(mount / "shop.ini")
    watched = Watched(path)
    for number in (2, 3):
        (mount / "..data_tmp").symlink_to(f"..{number}")
        (mount / "..data_tmp").rename(mount / "..data")
        shutil.rmtree(mount / f"..{number - 1}")
        assert watched.is_due(2.0)
        watched.load()


@pytest.mark.parametrize("how", ["removed", "moved", "moved further above"])
def test_a_folder_that_goes_and_comes_again(tmp_path: Path, how: str) -> None:
    """A move further above is not told, but seen at the next look. A change in the new folder is seen, too."""
    folder = tmp_path / "above" / "folder"
    (folder / "conf.d").mkdir(parents=True)
    (folder / "shop.ini").write_text(TEXT.format(1))
    watched = Watched(folder / "shop.ini")
    if how == "removed":
        shutil.rmtree(folder)
    elif how == "moved":
        folder.rename(tmp_path / "elsewhere")
    else:
        folder.parent.rename(tmp_path / "elsewhere")
    assert watched.is_due(2.0 if how != "moved further above" else IDLE_SECONDS + 2.0)  # it cannot be read: a failure
    assert not watched.is_due(60.0)
    folder.mkdir(parents=True)
    watched.price(2)
    assert watched.is_due(2.0)
    watched.load()
    watched.price(3)
    assert watched.is_due(2.0)


def test_without_the_kernels_help(tmp_path: Path) -> None:
    """Which has a limit of watches for each user, it looks every second."""

    class Deaf(FolderWatch):
        def __init__(self) -> None:
            super().__init__()
            self.close()

    (tmp_path / "shop.ini").write_text(TEXT.format(1))
    watched = Watched(tmp_path / "shop.ini", Deaf)
    watched.price(2)
    assert not watched.is_due(QUIET_SECONDS)
    assert watched.is_due(DEAF_SECONDS + QUIET_SECONDS)


def test_it_watches_only_where_it_may(watched: Watched) -> None:
    """During an upgrade nothing is due; afterwards what has changed is. Without the option nothing is watched."""
    watched.price(2)
    for _ in range(20):
        watched.now += 0.5
        assert not watched.watch.turn(watched.now, may_reload=False)
    assert watched.watch.wake_at == float("inf")
    assert watched.is_due(2.0)
    watched.path.write_text(TEXT.replace("reload_on_change = true", "reload_on_change = false"))
    watched.load()
    assert not watched.turn()
    assert watched.watch.wake_at == float("inf")


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    """The folder where they lie is all that there is to watch."""
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    assert folders_to(str(tmp_path / "one")) == {str(tmp_path)}
    (tmp_path / "deep").symlink_to(tmp_path / "not" / "there")
    assert folders_to(str(tmp_path / "deep")) == {str(tmp_path)}
