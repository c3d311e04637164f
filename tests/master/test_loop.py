"""The master's loop: who is called when, and what may happen meanwhile."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from rpccluster.ipc.channel import channel_pair
from rpccluster.ipc.messages import DonorGone
from rpccluster.master.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    """Closed at the end."""
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a stream."""
    one, other = socket.socketpair()
    with one, other:
        yield one, other


Pair = tuple[socket.socket, socket.socket]


def test_whoever_is_readable_is_called(loop: Loop, pair: Pair) -> None:
    """In the same turn, as long as there is something to read."""
    called = []
    loop.watch(pair[0], lambda: called.append("0"))
    loop.turn(0)
    assert called == []
    pair[1].send(b"x")
    loop.turn(10)
    loop.turn(10)
    assert called == ["0", "0"]


def test_end_of_file_is_readable(loop: Loop, pair: Pair) -> None:
    """That is how the master learns of deaths."""
    called = []
    loop.watch(pair[0], lambda: called.append(pair[0].recv(10)))
    pair[1].close()
    loop.turn(10)
    assert called == [b""]


def test_writing_is_watched_while_somebody_wants_to(loop: Loop, pair: Pair) -> None:
    """Then both are called, in one turn."""
    called = []
    loop.watch(pair[0], lambda: called.append("read"))
    loop.turn(0)
    loop.watch_writing(pair[0], lambda: called.append("write"))
    loop.watch_writing(pair[0], lambda: called.append("never, the first one stays"))
    pair[1].send(b"x")
    loop.turn(10)
    assert called == ["read", "write"]
    loop.watch_writing(pair[0], None)
    loop.watch_writing(pair[0], None)
    loop.turn(10)
    assert called == ["read", "write", "read"]


def test_unwatching_twice_or_never_watched_is_no_error(loop: Loop, pair: Pair) -> None:
    """Nor is one whose descriptor is closed already."""
    loop.unwatch(pair[0])
    loop.watch(pair[0], lambda: None)
    loop.unwatch(pair[0])
    loop.unwatch(pair[0])
    pair[0].close()
    loop.unwatch(pair[0])


def test_what_is_sent_to_a_process_that_was_heard_out_is_no_error(loop: Loop) -> None:
    """Its channel is watched no more, and stays open until what it had not read is read back."""
    own, theirs = channel_pair()
    loop.watch(own, list)
    loop.mind_writing(own)
    loop.unwatch(own)
    own.send(DonorGone(1, False, 2))
    loop.mind_writing(own)
    assert [message for message, _ in theirs.receive()] == [DonorGone(1, False, 2)]
    own.close()
    theirs.close()


def test_a_callback_may_end_another_of_the_same_turn(loop: Loop) -> None:
    """What was unwatched, and perhaps closed, by one callback is not called by the same turn any more."""
    pairs = [socket.socketpair() for _ in range(4)]
    called: list[int] = []

    def end_all(number: int) -> None:
        called.append(number)
        for one, other in pairs:
            loop.unwatch(one)
            one.close()
            other.close()

    for number, (one, other) in enumerate(pairs):
        loop.watch(one, lambda number=number: end_all(number))  # type: ignore[misc]
        other.send(b"x")
    loop.turn(10)
    assert len(called) == 1


def test_a_callback_may_read_and_then_end_itself(loop: Loop, pair: Pair) -> None:
    """Its own writing is not called any more in that turn."""
    called = []

    def end() -> None:
        called.append("read")
        loop.unwatch(pair[0])
        pair[0].close()

    loop.watch(pair[0], end)
    loop.watch_writing(pair[0], lambda: called.append("write"))
    pair[1].send(b"x")
    loop.turn(10)
    assert called == ["read"]


def test_closing_a_forked_copy_leaves_the_other_watching(pair: Pair) -> None:
    """A child that unregistered from an inherited epoll would blind the master: it only closes its copy."""
    loop = Loop()
    called = []
    loop.watch(pair[0], lambda: called.append(1))
    pid = os.fork()
    if pid == 0:
        try:
            loop.close()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    pair[1].send(b"x")
    loop.turn(10)
    assert called == [1]
    loop.close()


def test_what_is_watched_can_change(loop: Loop, pair: Pair) -> None:
    """Reading alone, writing alone, both; who no longer reads is not woken by what comes."""
    called: list[str] = []
    pair[1].send(b"x")
    read, write = (lambda: called.append("read")), (lambda: called.append("write"))
    loop.watch(pair[0], read)
    for on_readable, on_writable, expected in (
        (None, write, ["write"]),
        (read, write, ["read", "write"]),
        (read, None, ["read"]),
    ):
        called.clear()
        loop.rewatch(pair[0], on_readable, on_writable)
        loop.rewatch(pair[0], on_readable, on_writable)
        loop.turn(10)
        assert called == expected


def test_whoever_only_writes_hears_that_the_peer_has_gone(loop: Loop, pair: Pair) -> None:
    """epoll tells it in any case, and the next send fails."""
    called: list[str] = []
    pair[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            pair[0].send(bytes(65536))
    loop.watch(pair[0], lambda: called.append("read"))
    loop.rewatch(pair[0], None, lambda: called.append("write"))
    loop.turn(0)
    assert called == []
    pair[1].close()
    loop.turn(10)
    assert called == ["write"]
