"""Whatever fails in one part of the master, under pressure or by a fault, the others go on."""

from __future__ import annotations

import errno
import gc
import logging
import os
import selectors
import signal
import socket
from collections.abc import Container, Iterator
from typing import Any, Callable

import pytest

from rpccluster.ipc.channel import channel_pair
from rpccluster.ipc.messages import Accept
from rpccluster.master.children.group import Group
from rpccluster.master.children.roster import Roster
from rpccluster.master.guard import Guard
from rpccluster.master.loop import Loop
from rpccluster.master.upgrade.new_master import NewMaster
from rpccluster.master.upgrade.starting import CommandLine, Started, start
from rpccluster.system import Exit, Reserve, System

from .made_up import group

PRESSURE = [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN, errno.ENOSPC]
each_error = pytest.mark.parametrize("number", PRESSURE, ids=errno.errorcode.get)


def refusal(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def descriptors() -> set[str]:
    gc.collect()  # what tests before left to it
    return set(os.listdir("/proc/self/fd"))


class Pressed(System):
    """A system that has no process left, and notes whom it was to kill."""

    def __init__(self, number: int, pid: int | None = None) -> None:
        self.number, self.pid = number, pid
        self.killed: list[tuple[int, int]] = []
        self.ended: list[Exit] = []

    def fork(self) -> int:
        if self.pid is None:
            raise refusal(self.number)
        return self.pid

    def kill(self, pid: int, signum: int) -> None:
        self.killed.append((pid, signum))

    def reap(self, leaders: Container[int] = (), let_go: Callable[[int], object] = int) -> list[Exit]:
        ended, self.ended = self.ended, []
        return ended


class FullSelector(selectors.SelectSelector):
    """epoll_ctl(2) fails for lack of memory, and for the limit of watched descriptors."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def register(self, *_: Any) -> Any:
        raise refusal(self.number)


def roster_on(system: System, loop: Loop) -> Roster:
    entry: Any = lambda assignment: 0  # noqa: E731
    return Roster(system, loop, entry, 1)


def spawned(roster: Roster, workers: Group) -> Any:
    return roster.spawn(workers, 0, workers.section, None)


@pytest.fixture
def loop() -> Iterator[Loop]:
    """Closed at the end."""
    made = Loop()
    yield made
    made.close()


@each_error
def test_what_fails_is_told_once_and_the_rest_goes_on(number: int, caplog: pytest.LogCaptureFixture) -> None:
    """And again only when ten seconds have passed; a refusal of the system needs no traceback."""
    now = [0.0]
    guard = Guard(lambda: now[0])

    def fail() -> None:
        raise refusal(number)

    assert guard.attempt("obey a signal", int)
    assert [guard.attempt("obey a signal", fail) for _ in range(5)] == [False] * 5
    assert len(caplog.records) == 1
    assert "Cannot obey a signal: " in caplog.text
    assert "Traceback" not in caplog.text
    now[0] = 11.0
    guard.attempt("obey a signal", fail)
    assert "(and 4 more like this" in caplog.text


def test_a_failure_asks_for_another_try() -> None:
    """Once for all that have failed: no event would."""
    guard = Guard()
    assert not guard.take_failure()
    for _ in range(2):
        guard.attempt("do what is due", lambda: [][0])
    guard.attempt("do what is due", int)
    assert [guard.take_failure(), guard.take_failure()] == [True, False]


def test_a_fault_of_ours_is_told_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody could mend it otherwise."""
    assert not Guard().attempt("do what is due", lambda: [][0])
    assert "Traceback" in caplog.text


def test_a_callback_that_fails_ends_nothing(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    """The others of the turn are called, and it is called again in the next."""
    called: list[str] = []

    def fail() -> None:
        called.append("failing")
        raise refusal(errno.ENOMEM)

    failing, other = socket.socketpair(), socket.socketpair()
    loop.watch(failing[0], fail)
    loop.watch(other[0], lambda: called.append(other[0].recv(1).decode()))
    failing[1].send(b"x")
    other[1].send(b"y")
    loop.turn(1)
    loop.turn(1)
    assert sorted(called) == ["failing", "failing", "y"]
    loop.unwatch(failing[0])
    for sock in (*failing, *other):
        sock.close()


def test_the_reserve_is_there_when_nothing_else_is() -> None:
    """What it lends can be had by others; afterwards it takes back what is free."""
    import resource

    reserve = Reserve(4)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, descriptors())) + 8, limits[1]))
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                taken.append(os.dup(0))
        with reserve.lent():
            taken += [os.dup(0) for _ in range(4)]
            with pytest.raises(OSError, match="Too many open files"):
                os.dup(0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in taken:
            os.close(descriptor)
    with reserve.lent():
        pass
    reserve.close()


@each_error
def test_a_worker_that_cannot_be_forked(number: int, loop: Loop) -> None:
    """None is started, nothing stays open, and its row is free again."""
    roster, workers = roster_on(Pressed(number), loop), group()
    before = descriptors()
    assert [spawned(roster, workers) for _ in range(3)] == [None] * 3
    assert descriptors() == before
    assert (workers.children, roster._scoreboard.rows_in_use) == ([], 0)


@each_error
def test_a_worker_that_cannot_be_watched(number: int) -> None:
    """It is killed: nobody would hear it. Nothing stays open."""
    system = Pressed(number, pid=4711)
    roster, workers = roster_on(system, Loop(selector=FullSelector(number))), group()
    before = descriptors()
    assert spawned(roster, workers) is None
    assert descriptors() == before
    assert (workers.children, system.killed) == ([], [(4711, signal.SIGKILL)])


def test_a_worker_is_reaped_whatever_fails(loop: Loop) -> None:
    """Its last word cannot be read: it is reaped all the same, and so are those that died with it."""

    def fail(*_: object) -> None:
        raise refusal(errno.ENOMEM)

    system = Pressed(0, pid=4711)
    roster, workers = roster_on(system, loop), group()
    one = spawned(roster, workers)
    system.pid = 4712
    other = spawned(roster, workers)
    system.ended = [Exit(4711, 1, None), Exit(4712, 1, None)]
    one.read = fail
    other.far_end.send(Accept())
    assert [(each, child.pid) for each, child, _ in roster.reap()] == [(workers, 4711), (workers, 4712)]
    assert [said.message for said in roster.take_said()] == [Accept()]
    assert list(roster.reap()) == []


@each_error
def test_a_new_master_that_cannot_be_forked(number: int) -> None:
    """The upgrade is refused, nothing stays open."""
    before = descriptors()
    command = CommandLine([], "/")
    assert start(Pressed(number), command, []) is None
    assert descriptors() == before


@each_error
def test_a_new_master_that_cannot_be_watched(number: int) -> None:
    """It is ended, and whoever asked learns why."""
    system = Pressed(number)
    loop = Loop(selector=FullSelector(number))
    ours, theirs = channel_pair()
    new_master = NewMaster(system, loop, lambda: Started(4711, ours, 300.0), lambda event: None)
    new_master.begin()
    theirs.close()
    assert not new_master.is_under_way
    assert new_master.failure
    assert os.strerror(number) in new_master.failure
    assert system.killed == [(4711, signal.SIGKILL)]


def test_log_lines_survive_it(caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be told of an error is left out."""

    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise MemoryError

    def fail() -> None:
        raise Unspeakable

    with caplog.at_level(logging.ERROR):
        assert not Guard().attempt("do what is due", fail)
    assert "Cannot do what is due: Unspeakable" in caplog.text
