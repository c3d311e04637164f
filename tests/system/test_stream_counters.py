"""The kernel's counters of a TCP stream, compared byte for byte with what a killed process had read and written."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from rpccluster.system.stream_counters import COUNTS_STREAMS, counts_unix_sockets, stream_counters, unix_state

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))

pytestmark = pytest.mark.skipif(not COUNTS_STREAMS, reason="only Linux counts streams")

PATTERN = random.Random(5).randbytes(65_521)
SO_PEEK_OFF = 42
MARK = b"<the end of what the dead one has written>"


def pattern_at(offset: int, length: int) -> bytes:
    start = offset % len(PATTERN)
    return (PATTERN * 2)[start : start + length]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with ours, theirs:
        yield ours, theirs


def in_child(do: Callable[[], object]) -> int:
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            do()
        os._exit(0)
    return pid


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def send_for_ever(sock: socket.socket) -> None:
    at = 0
    with contextlib.suppress(OSError):
        while True:
            at += sock.send(pattern_at(at, len(PATTERN)))


def test_it_counts_what_was_read_and_written(pair: tuple[socket.socket, socket.socket]) -> None:
    served, peer = pair
    peer.sendall(b"x" * 1000)
    assert len(served.recv(300)) == 300
    served.sendall(b"y" * 50)
    assert stream_counters(served) == (300, 50, True)


def test_the_peers_end_counts_as_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    served, peer = pair
    peer.sendall(b"x" * 10)
    peer.shutdown(socket.SHUT_WR)
    assert len(served.recv(4, socket.MSG_WAITALL)) == 4
    deadline = time.monotonic() + 10
    while served.recv(10, socket.MSG_PEEK) != b"x" * 6 and time.monotonic() < deadline:
        pass
    assert stream_counters(served) == (4, 0, True)
    assert served.recv(6, socket.MSG_WAITALL) + served.recv(1) == b"x" * 6
    assert stream_counters(served) == (10, 0, True)


def test_after_our_own_end_nothing_goes_on(pair: tuple[socket.socket, socket.socket]) -> None:
    served, _ = pair
    served.sendall(b"y" * 70)
    served.shutdown(socket.SHUT_WR)
    found = stream_counters(served)
    assert found is not None and found == (0, found.written, False)


def test_a_reset_connection_has_no_counters(pair: tuple[socket.socket, socket.socket]) -> None:
    served, peer = pair
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    with contextlib.suppress(ConnectionResetError):
        served.recv(1)
    assert stream_counters(served) is None


def test_another_socket_is_refused() -> None:
    one, other = socket.socketpair()
    with one, other, pytest.raises(OSError):
        stream_counters(one)


@pytest.fixture
def unix_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The first one has a peek offset of a million."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 1_000_000)
        yield ours, theirs


def test_what_is_read_lowers_the_peek_offset_of_a_unix_socket(unix_pair: tuple[socket.socket, socket.socket]) -> None:
    served, peer = unix_pair
    peer.sendall(b"x" * 1000)
    assert len(served.recv(300)) == 300
    assert unix_state(served) == (999_700, True)
    assert len(served.recv(10_000)) == 700
    served.sendall(b"y")
    assert unix_state(served) == (999_000, True)
    assert peer.recv(10) == b"y"


def test_whether_unix_sockets_count_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel may take the option and do nothing with it."""
    assert counts_unix_sockets()
    monkeypatch.setattr("rpccluster.system.stream_counters._PEEK_OFF", socket.SO_SNDBUF)
    counts_unix_sockets.cache_clear()
    assert not counts_unix_sockets()
    counts_unix_sockets.cache_clear()


def test_a_unix_socket_may_go_on_until_it_was_ended_here(unix_pair: tuple[socket.socket, socket.socket]) -> None:
    """What a peer has left that has gone is yet to be read."""
    served, peer = unix_pair
    peer.sendall(b"left")
    peer.shutdown(socket.SHUT_WR)
    assert unix_state(served).is_open
    peer.close()
    assert unix_state(served) == (1_000_000, True)
    assert served.recv(10) == b"left"


def test_a_unix_socket_that_was_ended_here_does_not_go_on(unix_pair: tuple[socket.socket, socket.socket]) -> None:
    served, _ = unix_pair
    served.shutdown(socket.SHUT_WR)
    assert not unix_state(served).is_open


def test_a_unix_socket_without_a_peek_offset_has_none() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert unix_state(one) == (-1, True)


@contextlib.contextmanager
def killed_amid_reading(served: socket.socket, peer: socket.socket, chance: random.Random) -> Iterator[None]:
    """A process has read what the peer sends without end, and was killed; the peer goes on meanwhile."""

    def read() -> None:
        while served.recv(chance.randint(1, 100_000)):
            pass

    pid = in_child(read)
    sender = threading.Thread(target=send_for_ever, args=[peer])
    sender.start()
    try:
        time.sleep(chance.uniform(0.001, 0.02))
        end(pid)
        yield
    finally:
        peer.shutdown(socket.SHUT_RDWR)
        sender.join()


@pytest.mark.parametrize("seed", range(250 if FULL_SCALE else 12))
def test_what_a_killed_process_has_read_of_a_unix_socket_is_known_to_the_byte(
    unix_pair: tuple[socket.socket, socket.socket], seed: int
) -> None:
    served, peer = unix_pair
    chance = random.Random(seed)
    served.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, (1 << 31) - 1)

    with killed_amid_reading(served, peer, chance):
        found = unix_state(served)
        assert found.is_open
        assert served.recv(64, socket.MSG_WAITALL) == pattern_at((1 << 31) - 1 - found.peek_offset, 64)


@pytest.mark.parametrize("seed", range(250 if FULL_SCALE else 12))
def test_what_a_killed_process_has_read_is_known_to_the_byte(
    pair: tuple[socket.socket, socket.socket], seed: int
) -> None:
    served, peer = pair
    chance = random.Random(seed)

    with killed_amid_reading(served, peer, chance):
        found = stream_counters(served)
        assert found is not None and found.is_open
        assert served.recv(64, socket.MSG_WAITALL) == pattern_at(found.read, 64)


@pytest.mark.parametrize("seed", range(250 if FULL_SCALE else 12))
def test_what_a_killed_process_has_written_is_known_to_the_byte(
    pair: tuple[socket.socket, socket.socket], seed: int
) -> None:
    served, peer = pair
    chance = random.Random(seed)
    served.setblocking(bool(seed % 2))

    def write() -> None:
        at = 0
        while True:
            with contextlib.suppress(BlockingIOError):
                at += served.send(pattern_at(at, chance.randint(1, 65_000)))

    pid = in_child(write)
    received = bytearray()

    def receive() -> None:
        while not received.endswith(MARK):
            received.extend(peer.recv(chance.randint(1, 200_000)))

    reader = threading.Thread(target=receive)
    reader.start()
    time.sleep(chance.uniform(0.001, 0.02))
    end(pid)
    found = stream_counters(served)
    served.setblocking(True)
    served.sendall(MARK)
    reader.join()
    assert found is not None and found.written == len(received) - len(MARK)
