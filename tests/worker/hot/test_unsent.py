"""Output that waits for a slow peer: all of it, in its order, in hardly more memory than it has bytes."""

from __future__ import annotations

import _socket
import random
import socket
from collections.abc import Iterator

import gevent
import pytest

from rpccluster.worker.hot.outbox import HIGH_WATER_BYTES, Unsent

from ..rig import settle

Pair = tuple[_socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Our side, whose kernel buffer is small and full, and the peer's."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    raw = _socket.socket(fileno=ours.detach())
    raw.setblocking(False)
    theirs.setblocking(False)
    yield raw, theirs
    raw.close()
    theirs.close()


def unsent_on(sock: _socket.socket) -> Unsent:
    return Unsent(gevent.get_hub().loop, sock, lambda: None, lambda: pytest.fail("an error"))


@pytest.mark.parametrize("size", [9, 200, 3000, 5000, 65_536])
def test_pieces_take_hardly_more_memory_than_they_have_bytes(pair: Pair, size: int) -> None:
    """Each comes with an object of its own: of small ones these would be the most of it."""
    tracemalloc = pytest.importorskip("tracemalloc")  # PyPy has none
    unsent = unsent_on(pair[0])
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    while unsent.size <= HIGH_WATER_BYTES:
        unsent.add(memoryview(bytes(size)))
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    unsent.close()
    assert after - before < 1.5 * HIGH_WATER_BYTES


def test_everything_is_sent_in_its_order(pair: Pair) -> None:
    """Pieces of all sizes, while others are added and the peer reads a little now and then."""
    ours, theirs = pair
    unsent, choice = unsent_on(ours), random.Random(1)
    received = bytearray()
    sent = bytearray(b"x" * 500_000)  # so that it does not run dry meanwhile
    unsent.add(memoryview(bytes(sent)))
    for _ in range(500):
        piece = choice.randbytes(choice.choice((1, 9, 100, 4000, 5000, 20_000)))
        sent += piece
        unsent.add(memoryview(piece))
        received += read(theirs, choice.randrange(1, 8000))
        assert unsent.content() == sent[len(sent) - unsent.size :]
    while len(received) < len(sent):
        received += read(theirs, 1 << 16)
    assert received == sent
    assert unsent.size == 0


def read(sock: socket.socket, size: int) -> bytes:
    """What is there, after a turn of the loop."""
    settle()
    try:
        return sock.recv(size)
    except BlockingIOError:
        return b""
