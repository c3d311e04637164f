"""Descendants that leave their group and session: the mark says whose they are, and only they are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rpccluster.system.processes import descendants
from rpccluster.system.processes.descendants import MARK_VARIABLE, kill_group_of, kill_marked, started
from rpccluster.testing import is_alive, wait_until

MARKED = """
import os, sys, time
from rpccluster.system import set_title
from rpccluster.system.processes.descendants import put_mark
if os.fork():
    os.wait()
    sys.exit()
{before}
put_mark("m.1")
if os.fork() == 0:
    os.setsid()
    {then}
os.write(1, b"%d\\n" % os.getpid())
time.sleep(60)
"""
FORKS = "os.write(1, b'%d\\n' % os.getpid()); time.sleep(60)"
EXECS = f"os.execv(sys.executable, [sys.executable, '-c', {'import os, time; ' + FORKS!r}])"


@contextmanager
def running(program: str, environment: dict[str, str] | None = None) -> Iterator[list[int]]:
    """The two processes that a program tells of; it and they are ended."""
    env = {**os.environ, **(environment or {})}
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout is not None
    pids = [int(process.stdout.readline()) for _ in range(2)]
    try:
        yield pids
    finally:
        for pid in [*pids, process.pid]:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("then", [FORKS, EXECS], ids=["forked", "executed"])
@pytest.mark.parametrize("before", ["", "set_title('rpccluster: plugin')"], ids=["untitled", "titled"])
def test_a_mark_goes_to_what_is_forked_and_what_is_executed(before: str, then: str) -> None:
    """Also to another session, and from a process whose title has taken the place of its environment."""
    with running(MARKED.format(before=before, then=then)) as pids:
        mine = os.getpid()
        assert sorted(kill_marked([*pids, mine], "m.2".__eq__)) == []
        assert sorted(kill_marked([*pids, mine], "m.1".__eq__)) == sorted(pids)
        wait_until(lambda: not any(is_alive(pid) for pid in pids), 10)


def test_a_cluster_in_a_plugin_of_another_has_both_marks() -> None:
    """The outer one ends everything; the inner one is not confused with it."""
    with running(MARKED.format(before="", then=FORKS), {MARK_VARIABLE: "outer.7"}) as pids:
        assert sorted(kill_marked(pids, "outer.7".__eq__)) == sorted(pids)


def test_a_title_is_still_what_it_was() -> None:
    """The mark does not show in it."""
    with running(MARKED.format(before="set_title('rpccluster: plugin')", then=FORKS)) as pids:
        shown = {Path(f"/proc/{pid}/cmdline").read_bytes().strip(b"\0") for pid in pids}
        assert shown == {b"rpccluster: plugin"}


def test_an_environment_too_small_for_a_mark_is_left_alone() -> None:
    """The process starts all the same; only what it forks without an exec has no mark then."""
    program = "from rpccluster.system.processes.descendants import put_mark; put_mark('m.1')"
    program += "; import os; print(os.environ)"
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {program}"]
    done = subprocess.run(command, env={}, capture_output=True, text=True, timeout=60)
    assert f"'{MARK_VARIABLE}': 'm.1'" in done.stdout, done.stderr


@pytest.mark.parametrize("has_pidfd", [True, False], ids=["pidfd", "start time"])
def test_a_process_that_takes_the_number_meanwhile_lives(monkeypatch: pytest.MonkeyPatch, has_pidfd: bool) -> None:
    """The marked one ends between the look and the kill; its number is another one's then."""
    if not has_pidfd:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
        starts = iter([1, 2])
        monkeypatch.setattr(descendants, "started", lambda pid: next(starts))
    stranger = subprocess.Popen(["sleep", "60"])
    marked = subprocess.Popen(["sleep", "60"], env={MARK_VARIABLE: "m.1"})

    def end_it(mark: str) -> bool:
        marked.kill()
        marked.wait()
        return mark == "m.1"

    looked_at = stranger.pid if not has_pidfd else marked.pid
    monkeypatch.setattr(descendants, "_marks", lambda pid: ["m.1"])
    try:
        assert kill_marked([looked_at], end_it) == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def group_of(program: str) -> tuple[subprocess.Popen[str], int]:
    """A process that leads a group, and the pid of another member."""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def end(*processes: Any) -> None:
    for process in processes:
        process.kill()
        process.communicate()


MEMBER = "import os, time\npid = os.fork()\nif pid: print(pid, flush=True)\ntime.sleep({leader} if pid else 60)"


def test_a_group_is_killed_with_or_without_its_leader() -> None:
    """As long as a member lives the number is the group's own."""
    for leader in (60, 0):
        process, member = group_of(MEMBER.format(leader=leader))
        began = started(process.pid)
        if not leader:
            process.wait()
        assert kill_group_of(process.pid, began)
        wait_until(lambda member=member: not is_alive(member), 10)  # type: ignore[misc]
        process.communicate()


def test_a_group_whose_number_is_a_strangers_lives() -> None:
    """Its leader was started at another time."""
    process, member = group_of(MEMBER.format(leader=60))
    try:
        assert not kill_group_of(process.pid, started(process.pid) - 1)
        assert is_alive(member)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        end(process)


def test_no_group_is_no_error() -> None:
    """It has ended already."""
    process = subprocess.Popen(["true"], start_new_session=True)
    process.wait()
    assert not kill_group_of(process.pid, 5)
    assert started(process.pid) == 0


def test_descendants_are_found_but_those_to_leave_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kernel's lists of children, and where it has none."""
    process, member = group_of(MEMBER.format(leader=60))
    other, grandchild = group_of(MEMBER.format(leader=60))
    try:
        found = descendants.descendants(os.getpid(), [other.pid])
        assert {process.pid, member} <= set(found)
        assert not {other.pid, grandchild} & set(found)
    finally:
        for each in (process, other):
            os.killpg(each.pid, signal.SIGKILL)
            end(each)
