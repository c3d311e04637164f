"""The acceptor on a made-up loop: which listeners it watches, what it takes, and what it does when it may not."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import tempfile
import time
from multiprocessing.connection import wait

import pytest

from rpccluster.ipc.scoreboard import Cell, CommonCell, RowState, Scoreboard
from rpccluster.rate_limit import LogLimiter
from rpccluster.testing import wait_until
from rpccluster.worker.accepting.acceptor import PAUSE_SECONDS, REST_SECONDS, Acceptor
from rpccluster.worker.accepting.lock import AcceptLock
from rpccluster.worker.limits import Limits


class Watcher:
    """A watcher of a descriptor, or a timer; `fire` does what the loop would."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.callback = None

    def start(self, callback, *args):
        self.callback = lambda: callback(*args)

    again = start

    def stop(self):
        self.callback = None

    def fire(self):
        self.callback()

    @property
    def is_active(self):
        return self.callback is not None


class Loop:
    """Makes watchers and keeps them."""

    def __init__(self) -> None:
        self.ios: list[Watcher] = []
        self.timers: dict[float, Watcher] = {}

    def io(self, descriptor, events):
        self.ios.append(Watcher())
        return self.ios[-1]

    def timer(self, after, repeat):
        return self.timers.setdefault(repeat, Watcher(repeat))


class Rig:
    """One acceptor, the worker of row 0, beside workers with ``others`` connections."""

    def __init__(self, *others: int, lock: AcceptLock | None = None, limit: int = 1000) -> None:
        self.loop, self.served, self.sent = Loop(), [], []
        self.scoreboard = Scoreboard(8)
        for count in (0, *others):
            row = self.scoreboard.row(self.scoreboard.take_row())
            row[CommonCell.STATE], row[Cell.CONNECTIONS], row[Cell.CONNECTION_LIMIT] = RowState.ACCEPTING, count, limit
            row[CommonCell.HEARTBEAT] = 2**62  # alive for as long as a test lasts
        self.row = self.scoreboard.row(0)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.address = self.listener.getsockname()
        limits = Limits(self.row.cells, LogLimiter(0.0))
        self.acceptor = Acceptor(self.loop, [self.listener], self.serve, self.scoreboard, 0, lock, limits)
        self.acceptor.start()

    def serve(self, sock, peer):
        self.served.append(sock)
        self.row[Cell.CONNECTIONS] += 1

    def connect(self, count: int = 1) -> None:
        self.sent += [socket.create_connection(self.address) for _ in range(count)]
        wait([self.listener], 5)

    @property
    def io(self) -> Watcher:
        return self.loop.ios[0]

    @property
    def pause(self) -> Watcher:
        return self.loop.timers[PAUSE_SECONDS]

    @property
    def rest(self) -> Watcher:
        return self.loop.timers[REST_SECONDS]

    def close(self) -> None:
        self.acceptor.stop()
        for sock in (*self.served, *self.sent):
            sock.close()


@pytest.fixture
def rig():
    """Makes rigs and ends them."""
    with contextlib.ExitStack() as stack:

        def make(*others: int, **settings: object) -> Rig:
            made = Rig(*others, **settings)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def lock_file():
    """A file to lock."""
    with tempfile.TemporaryFile() as file:
        yield file


@contextlib.contextmanager
def lock_held_by_another(file):
    """Another process holds the lock; yields its pid."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with AcceptLock(file.fileno()).tried() as is_held:
                os.write(write_end, b"y" if is_held else b"n")
                time.sleep(60)
        finally:
            os._exit(1)
    try:
        assert os.read(read_end, 1) == b"y"
        yield pid
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(read_end)
        os.close(write_end)


def test_a_listener_that_is_added(rig) -> None:
    """Its path was made anew: it is watched as the others are, and closed with them; one that comes late is closed."""
    made = rig(0)
    added = socket.create_server(("127.0.0.1", 0))
    made.acceptor.add([os.dup(added.fileno())])
    made.address = added.getsockname()
    made.sent.append(socket.create_connection(made.address))
    wait([added], 5)
    made.loop.ios[-1].fire()
    assert len(made.served) == 1
    made.acceptor.stop()
    before = os.listdir("/proc/self/fd")
    made.acceptor.add([os.dup(added.fileno())])
    assert os.listdir("/proc/self/fd") == before
    added.close()


def test_a_lock_that_cannot_be_had_is_done_without(caplog: pytest.LogCaptureFixture) -> None:
    """It is no lock that another holds: that is told, once, and connections are taken all the same."""
    lock = AcceptLock(os.open("/", os.O_PATH))
    for _ in range(3):
        with lock.tried() as is_held:
            assert is_held
    assert [record.getMessage() for record in caplog.records] == [
        "Accepting without the accept lock: [Errno 9] Bad file descriptor"
    ]


def test_without_a_lock_it_accepts_whenever_it_can(rig):
    """``accept_lock = false``: nobody's turn matters."""
    alone = rig(0, 0)
    alone.row[Cell.CONNECTIONS] = 5
    alone.connect(3)
    alone.io.fire()
    assert len(alone.served) == 3
    assert alone.row[Cell.ACCEPTED] == 3 == alone.scoreboard.accept_counter
    assert alone.row[Cell.ACCEPT_WAKEUPS] == 1


def test_with_the_lock_it_waits_its_turn(rig, lock_file):
    """Another has fewer: the listeners are left alone for a moment, then watched again."""
    waiting = rig(0, lock=AcceptLock(lock_file.fileno()))
    waiting.row[Cell.CONNECTIONS] = 5
    waiting.connect()
    waiting.io.fire()
    assert not waiting.served
    assert not waiting.io.is_active
    assert waiting.pause.is_active
    waiting.pause.fire()
    assert waiting.io.is_active
    assert not waiting.pause.is_active


def test_it_takes_its_share_of_a_burst_and_pauses(rig, lock_file):
    """With the lock, as long as it is at most one ahead of the other."""
    fair = rig(3, lock=AcceptLock(lock_file.fileno()))
    fair.connect(10)
    fair.io.fire()
    assert len(fair.served) == 5  # the fifth at a lead of one
    assert fair.pause.is_active


def test_a_lock_that_another_holds_is_not_waited_for(rig, lock_file):
    """It looks again in a moment; once patience is over it accepts without: the holder is stopped."""
    mine = rig(5, lock=AcceptLock(lock_file.fileno()))
    mine.connect()
    with lock_held_by_another(lock_file):
        mine.io.fire()
        assert not mine.served
        assert mine.pause.is_active

        def look_again() -> bool:
            if mine.pause.is_active:
                mine.pause.fire()
            mine.io.fire()
            return bool(mine.served)

        wait_until(look_again, 5)


def test_a_killed_holder_leaves_the_lock_free(rig, lock_file):
    """The kernel drops the lock of a process that dies."""
    lock = AcceptLock(lock_file.fileno())
    with lock_held_by_another(lock_file), lock.tried() as is_held:
        assert not is_held
    with lock.tried() as is_held:
        assert is_held


@pytest.mark.parametrize("has_lock", [False, True])
def test_a_full_worker_rests(rig, lock_file, has_lock):
    """``worker_connections`` holds, and what waits does not wake the worker all the time."""
    full = rig(lock=AcceptLock(lock_file.fileno()) if has_lock else None, limit=2)
    full.connect(3)
    full.io.fire()
    assert len(full.served) == 2
    assert not full.io.is_active
    assert full.rest.is_active
    full.row[Cell.CONNECTIONS] = 1
    full.rest.fire()
    full.io.fire()
    assert len(full.served) == 3


@pytest.mark.parametrize("has_lock", [False, True])
def test_one_whose_greenlets_are_all_taken_rests(rig, lock_file, has_lock, caplog):
    """What it accepted nobody would read; that is told elsewhere."""
    full = rig(lock=AcceptLock(lock_file.fileno()) if has_lock else None)
    full.row[Cell.GREENLETS_TAKEN_AT] = 1
    full.connect(3)
    full.io.fire()
    assert full.served == []
    assert full.rest.is_active
    assert (full.row[Cell.WORKER_CONNECTIONS], caplog.messages) == (0, [])
    full.row[Cell.GREENLETS_TAKEN_AT] = 0
    full.rest.fire()
    full.io.fire()
    assert len(full.served) == 3


def test_being_full_is_counted_once_until_it_accepts_again(rig, caplog):
    """However often it looks while connections wait."""
    caplog.set_level("INFO")
    full = rig(limit=2)
    full.connect(4)
    for _ in range(5):
        full.io.fire()
        full.rest.fire()
    assert full.row[Cell.WORKER_CONNECTIONS] == 1
    assert caplog.messages == ["Leaving connections waiting: 2 are open here"]
    full.row[Cell.CONNECTIONS] = 1
    full.io.fire()
    assert len(full.served) == 3
    assert full.row[Cell.WORKER_CONNECTIONS] == 2


def test_without_descriptors_it_refuses_one_and_rests(rig, caplog):
    """Out of descriptors: the caller that waits is closed by way of the reserve, and the loop is not spun."""
    short = rig()
    short.connect()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = os.dup(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken, hard))
    try:
        short.io.fire()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(taken)
    assert not short.served
    assert short.row[Cell.DESCRIPTORS] == 1
    peer = f"tcp://127.0.0.1:{short.sent[0].getsockname()[1]}"
    assert caplog.messages == [f"Refusing the connection of {peer}: [Errno 24] Too many open files"]
    short.sent[0].settimeout(5)
    assert short.sent[0].recv(1) == b""
    assert short.rest.is_active
    short.rest.fire()
    short.connect()
    short.io.fire()
    assert len(short.served) == 1


def test_a_reserve_that_is_lost_is_had_again(rig):
    """Another takes the last descriptor while the reserve is used: nothing that is another's is closed later."""
    short = rig()
    short.connect(2)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    reserve = short.acceptor._reserve._held.pop()
    os.close(reserve)
    os.dup2(0, reserve)  # another's
    taken = os.dup(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken, hard))
    try:
        short.io.fire()
        short.rest.fire()
        short.io.fire()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(taken)
    os.fstat(reserve)
    assert not short.served
    assert short.row[Cell.DESCRIPTORS] == 2
    short.rest.fire()
    short.io.fire()
    assert len(short.served) == 2
    os.close(reserve)


def test_stopped_it_watches_nothing_and_closes_its_listeners(rig):
    """A retiring worker takes nothing any more, whatever timer was still running."""
    over = rig()
    over.acceptor.stop()
    assert not over.io.is_active
    assert over.listener.fileno() == -1
    over.acceptor._watch()
    assert not over.io.is_active


def test_waiting_costs_one_look_a_pause(lock_file):
    """On gevent's own loop: a connection that is another's is looked at once a millisecond, not all the time."""
    import gevent

    scoreboard = Scoreboard(2)
    for count in (5, 0):
        row = scoreboard.row(scoreboard.take_row())
        row[CommonCell.STATE], row[Cell.CONNECTIONS], row[Cell.CONNECTION_LIMIT] = RowState.ACCEPTING, count, 10
        row[CommonCell.HEARTBEAT] = 2**62
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        listener.setblocking(False)
        loop, served = gevent.get_hub().loop, []
        lock = AcceptLock(lock_file.fileno())
        limits = Limits(scoreboard.row(0).cells, LogLimiter())
        acceptor = Acceptor(loop, [listener], lambda sock, peer: served.append(sock), scoreboard, 0, lock, limits)
        acceptor.start()
        looks = 50
        for _ in range(looks):
            scoreboard.count_accept()  # the other accepts: it lives, and this one goes on waiting
            gevent.sleep(0.002)
        acceptor.stop()
    assert not served
    assert 2 <= scoreboard.row(0)[Cell.ACCEPT_WAKEUPS] <= looks * 2 * 3
