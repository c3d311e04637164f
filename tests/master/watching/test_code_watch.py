"""Files that are watched for `reload_code`: when a change is due."""

from __future__ import annotations

import math
from pathlib import Path

from rpccluster.master.watching.code_watch import LOOK_SECONDS, CodeWatch


def test_a_change_is_due_once_when_it_has_settled(tmp_path: Path) -> None:
    """Not while files go on changing; then once."""
    one, other = tmp_path / "one.py", tmp_path / "other.py"
    for each in (one, other):
        each.write_text("1")
    watch = CodeWatch()
    assert (watch.wake_at, watch.turn(0)) == (math.inf, False)
    watch.follow([str(one), str(other)], 10.0)
    assert watch.wake_at == 10.0 + LOOK_SECONDS
    due = []
    for number, change in enumerate([None, one, other, None, None]):
        if change is not None:
            change.write_text("12")
        assert not watch.turn(watch.wake_at - 0.01)
        due.append((number, watch.turn(watch.wake_at)))
    assert [number for number, is_due in due if is_due] == [3]


def test_a_file_that_goes_and_comes_has_changed(tmp_path: Path) -> None:
    """As an editor may save it; a new worker's list takes nothing of that away."""
    file = tmp_path / "one.py"
    file.write_text("1")
    watch = CodeWatch()
    watch.follow([str(file)], 0.0)
    file.unlink()
    watch.follow([str(file)], 0.0)
    assert not watch.turn(watch.wake_at)
    file.write_text("1")
    assert not watch.turn(watch.wake_at)
    assert watch.turn(watch.wake_at)


def test_without_files_nothing_is_watched(tmp_path: Path) -> None:
    """As when a reload has switched it off."""
    file = tmp_path / "one.py"
    watch = CodeWatch()
    watch.follow([str(file)], 0.0)
    file.write_text("1")
    watch.turn(watch.wake_at)
    watch.follow([], 5.0)
    assert (watch.wake_at, watch.turn(100.0)) == (math.inf, False)
