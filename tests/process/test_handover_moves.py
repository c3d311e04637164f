"""Connections that move in the middle of something: of a message, of a reply, of calls that run."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from lines import Line, lines_to, notification, request

from rpccluster.testing import RunningCluster, is_alive, wait_until

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
MESSAGE_BYTES = 1 << 20
SLOW_SECONDS = 2.0
FLOW_BOUND_SECONDS = 0.05 if FULL_SCALE else 30.0  # a machine that runs other tests, too, has hiccups of its own

SERVICE = """
import os, time

class Moves:
    def __init__(self):
        self.file = os.open(os.environ["NOTES_FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(self, number, seconds=0):
        time.sleep(seconds)
        os.write(self.file, b"%d\\n" % number)
        return number

    def note_later(self, number, gate):
        while not os.path.exists(gate):
            time.sleep(0.01)
        return self.note(number)

    def slow(self, seconds):
        time.sleep(seconds)
        return os.getpid()

    def pid(self):
        return os.getpid()

    def echo(self, *values):
        return list(values)

    def large(self, letter, size):
        return letter * size
"""

StartMoves = Callable[..., RunningCluster]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Where the service writes down the calls of ``note``."""
    return tmp_path / "notes"


@pytest.fixture
def moves(make_cluster, notes) -> StartMoves:
    """Starts a cluster whose service can be slow, large, and keep a record."""

    def start(**options: object) -> RunningCluster:
        running = make_cluster({"NOTES_FILE": str(notes)}, service="moves:Moves", **{"number_workers": 1, **options})
        running.write_module("moves", SERVICE)
        return running.start()

    return start


def _noted(notes: Path) -> Counter[int]:
    """How often each number was noted."""
    return Counter(map(int, notes.read_text().split()))


def _reload(running: RunningCluster) -> None:
    """Every connection is in another worker when this returns; calls may still run in the old ones."""
    old = running.worker_pids()
    assert running.run("reload", "--all").returncode == 0
    wait_until(lambda: not any(running.worker(pid).get("connections") for pid in old), what="the old ones are empty")
    assert not set(old) & set(running.worker_pids())


def _upgrade(running: RunningCluster) -> None:
    """Likewise, under a new master; to be used when nothing runs that keeps the old one."""
    old = running.master_pid
    assert running.run("upgrade").returncode == 0
    wait_until(lambda: not is_alive(old), what="the old master is gone")


def _recycle(running: RunningCluster) -> None:
    """Ask for the retirement of every worker that is ready."""
    for pid in running.worker_pids():
        os.kill(pid, signal.SIGTERM)


def _move(line: Line, move: Callable[[], object]) -> int:
    """Move, and wait until ``line`` is served by another worker; return its pid."""
    old = line.call("pid")
    move()
    return int(wait_until(lambda: (pid := line.call("pid")) != old and pid))


# -- in the middle of a message


def test_at_every_byte_of_a_call(moves):
    """A call that is cut at any byte when its connection moves is answered as if it had not been."""
    running = moves(number_workers=2)
    value = ["x" * 40, b"\x00\xff" * 10, 1.5, None, {"k": [1, -(2**40)]}, "é"]
    data = request(7, "echo", *value)
    with lines_to(running.address, len(data) + 1) as lines:
        for cut, line in enumerate(lines):
            line.call("pid", ahead=data[:cut])
        _reload(running)
        for cut, line in enumerate(lines):
            line.send(data[cut:])
        for line in lines:
            assert line.wait_for(7) == (None, value)


@pytest.mark.parametrize("move", [_reload, _upgrade])
def test_in_the_middle_of_a_large_message(moves, move):
    """A message of 1 MiB, of which more or less had come; part of it lay in the kernel."""
    running = moves(number_workers=2)
    value = random.Random(1).randbytes(MESSAGE_BYTES)
    data = request(7, "echo", value)
    cuts = [1, 5, 16_384, 65_536, 300_000, 524_288, len(data) - 65_536, len(data) - 1, len(data)]
    with lines_to(running.address, len(cuts)) as lines:
        for cut, line in zip(cuts, lines):
            line.call("pid", ahead=data[:cut])
        move(running)
        for cut, line in zip(cuts, lines):
            line.send(data[cut:])
            assert line.wait_for(7) == (None, [value])
            line.call("pid")


def test_pipelined_calls_cut_anywhere(moves, notes):
    """Many calls in one stream, notifications among them, cut at random: each runs once and is answered once."""
    running = moves(number_workers=2)
    chance = random.Random(2)
    with lines_to(running.address, 20) as lines:
        streams = [_pipelined(first * 100) for first in range(len(lines))]
        cuts = [chance.randrange(len(stream)) for stream in streams]
        for line, stream, cut in zip(lines, streams, cuts):
            line.send(stream[:cut])
        _reload(running)
        for line, stream, cut in zip(lines, streams, cuts):
            line.send(stream[cut:])
        for first, line in enumerate(lines):
            assert Counter(line.wait(80)) == Counter((n, None, n) for n in _called(first * 100))
        wait_until(lambda: len(_noted(notes)) == 2000)
        assert set(_noted(notes).values()) == {1}


def _called(first: int) -> list[int]:
    """Four of five numbers of a hundred."""
    return [number for number in range(first, first + 100) if number % 5]


def _pipelined(first: int) -> bytes:
    """A hundred notes; those that are not called are notified."""
    called = set(_called(first))
    numbers = range(first, first + 100)
    return b"".join(request(n, "note", n) if n in called else notification("note", n) for n in numbers)


def test_calls_that_wait_for_their_turn_move_along(moves, notes):
    """A worker that may run two calls at once has two when it retires; the others run elsewhere, in their order."""
    running = moves(max_greenlets=2)
    line = Line(running.address)
    line.send(b"".join(request(n, "note", n, 0.05) for n in range(40)))
    line.wait(3)
    _reload(running)
    assert Counter(line.wait(40)) == Counter((n, None, n) for n in range(40))
    assert _noted(notes) == Counter(range(40))
    line.close()


# -- in the middle of a reply


@pytest.mark.parametrize("is_unix", [False, True])
@pytest.mark.parametrize("move", [_reload, _upgrade])
def test_replies_that_the_client_has_not_read(moves, tmp_path, move, is_unix):
    """Replies of 1 MiB of which the client has read nothing, a little or most come whole and in their order."""
    running = moves(unix_socket=tmp_path / "moves.sock")
    address = f"unix://{tmp_path}/moves.sock" if is_unix else running.address
    lines = [Line(address, receive_buffer=4096) for _ in range(4)]
    letters = "abcdefgh"
    for line, enough in zip(lines, (0, 1, 1_000_000, 3_000_000)):
        line.send(b"".join(request(n, "large", letter, MESSAGE_BYTES) for n, letter in enumerate(letters)))
        line.peek(enough)
    wait_until(lambda: sum(worker["calls"] for worker in running.status()["workers"]) >= 4)
    move(running)
    for line in lines:
        line.send(request(9, "echo", 9))
    for line in lines:
        assert line.wait(len(letters)) == [(n, None, letter * MESSAGE_BYTES) for n, letter in enumerate(letters)]
        assert line.wait_for(9) == (None, [9])
        line.close()


# -- while a call runs


@pytest.mark.parametrize("command", ["recycle", "reload --all", "upgrade"])
def test_a_slow_call_is_answered_while_others_go_on_elsewhere(moves, command):
    """Its reply comes over the same connection from the old process; nobody behind it waits."""
    running = moves()
    line = Line(running.address)
    old = line.call("pid")
    line.send(request(7, "slow", 3 * SLOW_SECONDS if command == "upgrade" else SLOW_SECONDS))
    line.call("pid")
    if command == "recycle":
        _recycle(running)
    else:
        process = running.launch(*command.split())
    waits, pids = [], []
    while not any(reply[0] == 7 for reply in line.replies):
        seconds, pid = line.timed_call("pid")
        waits.append(seconds)
        pids.append(pid)
        time.sleep(0.001)  # paced: the others flow, they do not flood
    if command != "recycle":
        process.communicate()
        assert process.returncode == 0
    assert line.wait_for(7) == (None, old)
    assert pids[-1] != old, "the connection never moved"
    assert len(set(pids)) == 2
    assert max(waits) < FLOW_BOUND_SECONDS
    moved = waits[[pid == old for pid in pids].index(False)]
    print(f"{command}: {len(waits)} calls beside it, worst {max(waits) * 1000:.1f} ms, at the move {moved * 1000:.1f}")
    line.close()


def test_a_call_whose_connection_moves_on_and_on(moves):
    """Three moves, the last one under a new master, and the reply still finds its way from the first worker."""
    running = moves()
    line = Line(running.address)
    first = line.call("pid")
    line.send(request(7, "slow", 6.0))
    seen = {first}
    for move in (_recycle, _reload, lambda running: running.run("upgrade")):
        seen.add(_move(line, lambda move=move: move(running)))
    assert len(seen) == 4
    assert all(reply[0] != 7 for reply in line.replies), "too slow a machine: the call has ended before the moves"
    assert line.wait_for(7) == (None, first)
    assert line.call("pid") not in (first, None)
    line.close()


def test_a_call_that_outlasts_graceful_timeout(moves):
    """It is answered with WorkerRetired, over the connection that has moved on and lives."""
    running = moves(graceful_timeout=1)
    line = Line(running.address)
    line.send(request(7, "slow", 60.0))
    old = line.call("pid")
    assert _move(line, lambda: _recycle(running)) != old
    error, result = line.wait_for(7)
    assert error.startswith("WorkerRetired: ") and result is None
    assert line.call("pid") != old
    wait_until(lambda: not is_alive(old))
    line.close()


def test_equal_msgids_are_all_answered(moves):
    """A client may use a msgid again before it is answered: running, waiting and new calls of it all are."""
    running = moves(max_greenlets=3)
    line = Line(running.address)
    line.send(b"".join(request(7, "note", number, 1.0 if number < 3 else 0.0) for number in range(6)))
    wait_until(lambda: running.status()["workers"][0]["active_calls"] == 3)
    _reload(running)
    line.send(request(7, "note", 6))
    assert Counter(line.wait(7)) == Counter((7, None, number) for number in range(7))
    line.close()


def test_a_client_that_sends_nothing_more_gets_its_replies(moves):
    """Half closed, with calls that run and replies it has not read: they come, then the end."""
    running = moves()
    running_calls, unread = Line(running.address), Line(running.address, receive_buffer=4096)
    running_calls.send(b"".join(request(n, "slow", 1.0 + n / 10) for n in range(3)))
    running_calls.sock.shutdown(socket.SHUT_WR)
    unread.send(b"".join(request(n, "large", "x", MESSAGE_BYTES) for n in range(8)))
    unread.sock.shutdown(socket.SHUT_WR)
    wait_until(lambda: running.status()["workers"][0]["active_calls"] == 3)
    (old,) = running.worker_pids()
    _reload(running)
    assert Counter(running_calls.wait(3)) == Counter((n, None, old) for n in range(3))
    assert unread.wait(8) == [(n, None, "x" * MESSAGE_BYTES) for n in range(8)]
    for line in (running_calls, unread):
        line.assert_end()
        line.close()
    wait_until(lambda: not any(worker["connections"] for worker in running.status()["workers"]))


def test_a_notification_that_runs_is_finished(moves, notes, tmp_path):
    """The worker stays for it, though nobody waits; and it runs once."""
    running = moves()
    line = Line(running.address)
    line.send(notification("note_later", 1, str(tmp_path / "gate")))
    _move(line, lambda: _recycle(running))
    assert not _noted(notes)
    (tmp_path / "gate").touch()
    wait_until(lambda: _noted(notes) == Counter([1]))
    line.close()


@pytest.mark.parametrize("kind", ["unix", "ipv6"])
def test_other_kinds_of_sockets_move_alike(moves, tmp_path, kind):
    """Unix sockets and IPv6, with a call that runs and one in arrival; the log still knows the peer."""
    running = moves(**{"unix": {"unix_socket": tmp_path / "moves.sock"}, "ipv6": {"bind": "tcp://[::1]:0"}}[kind])
    line = Line(f"unix://{tmp_path}/moves.sock" if kind == "unix" else running.address)
    old = line.call("pid", ahead=request(7, "slow", 1.0) + request(8, "echo", 8)[:5])
    _reload(running)
    line.send(request(8, "echo", 8)[5:])
    assert line.wait_for(8) == (None, [8])
    assert line.wait_for(7) == (None, old)
    line.send(b"\xc1")
    line.assert_end()
    running.wait_log("Closing the connection of " + ("a Unix socket" if kind == "unix" else "[::1]:"))
    line.close()
