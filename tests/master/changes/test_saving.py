"""Writes that the master's loop does not wait for: done by a process of their own, and told when it has ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpccluster.config.changes.writing import Rewriting
from rpccluster.master.changes import saving
from rpccluster.master.changes.saving import Saving, recording, rewritten
from rpccluster.master.history import History, read_history
from rpccluster.master.loop import Loop
from rpccluster.system import System
from rpccluster.testing import wait_until


class Clocked(System):
    """The operating system with a clock that a test sets."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


class Saved:
    def __init__(self) -> None:
        self.system = Clocked()
        self.loop = Loop()
        self.saving = Saving(self.system, self.loop)

    def wait(self) -> str:
        """Wait until the write has ended. Returns why it failed."""
        while self.saving.is_under_way:
            self.loop.turn(10)
        self.system.reap()
        return self.saving.failure


@pytest.fixture
def saved() -> Iterator[Saved]:
    made = Saved()
    yield made
    made.loop.close()


def test_the_outcome_comes_when_it_is_done(saved: Saved) -> None:
    """By another process, which has nothing of this one's."""
    pid, (read, write) = os.getpid(), os.pipe()
    saved.saving.begin(lambda: "" if os.getpid() != pid and len(os.listdir("/proc/self/fd")) < 7 else "what is this?")
    assert saved.saving.is_under_way
    assert saved.wait() == ""
    assert saved.saving.wake_at == float("inf")
    for end in (read, write):
        os.close(end)
    saved.saving.begin(lambda: "there is no room")
    assert saved.wait() == "there is no room"
    saved.saving.begin(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    assert "ZeroDivisionError" in saved.wait()


def test_one_that_is_killed_is_tried_once_more(saved: Saved, tmp_path: Path) -> None:
    """What it has done already is done."""

    def die_once() -> str:
        if not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return ""

    def die() -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return ""

    saved.saving.begin(die_once)
    assert saved.wait() == ""
    saved.saving.begin(die)
    assert saved.wait() == "the process that writes was killed"


def test_a_disk_that_hangs_is_not_waited_for(saved: Saved) -> None:
    """The process is killed; whether it could be is not waited for, either."""

    def hang() -> str:
        time.sleep(60)
        return ""

    saved.saving.begin(hang)
    saved.saving.turn()
    assert saved.saving.is_under_way
    saved.system.now = saving.LONGEST_SECONDS
    saved.saving.turn()
    assert saved.wait() == "the disk has not taken it within 30 s"


def test_the_master_may_end_meanwhile(saved: Saved, tmp_path: Path) -> None:
    """The write goes on."""

    def write() -> str:
        while not (tmp_path / "go").exists():
            time.sleep(0.01)
        (tmp_path / "done").touch()
        return ""

    saved.saving.begin(write)
    saved.saving.close()
    saved.saving.close()
    assert not saved.saving.is_under_way
    (tmp_path / "go").touch()
    wait_until((tmp_path / "done").exists)


def test_files_are_written(saved: Saved, tmp_path: Path) -> None:
    """The configuration's, if it is as it was or is new already; the history's, also where there is none yet."""
    file = tmp_path / "x.ini"
    file.write_bytes(b"old")
    change = Rewriting(str(file), b"old", b"new", {})
    for _ in range(2):
        saved.saving.begin(rewritten(change))
        assert saved.wait() == ""
        assert file.read_bytes() == b"new"
    saved.saving.begin(rewritten(change._replace(new=b"other")))
    assert saved.wait() == f"cannot write {file}: it has changed since it was read"
    history = History(str(tmp_path / "x.history"), number=7)
    for _ in range(2):
        saved.saving.begin(recording(history))
        assert saved.wait() == ""
    assert read_history(history.path) == history
    assert (tmp_path / "x.history").stat().st_mode & 0o777 == 0o600
    saved.saving.begin(recording(History(str(tmp_path / "no" / "x.history"))))
    assert saved.wait() == f"cannot write {tmp_path}/no/x.history: No such file or directory"
