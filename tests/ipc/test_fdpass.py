"""Descriptors over sockets: they arrive, closed on exec, all or none."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
from collections.abc import Iterator

import pytest

from rpccluster.errors import RPCClusterError, TruncatedDescriptors
from rpccluster.ipc.fdpass import MAX_DESCRIPTORS, receive_packet, send_packet

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two ends."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        yield one, other


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def test_packets_keep_their_borders(pair: Pair) -> None:
    """One packet a call, in order."""
    send_packet(pair[0], b"one")
    send_packet(pair[0], b"two")
    assert receive_packet(pair[1], 100) == (b"one", [])
    assert receive_packet(pair[1], 100) == (b"two", [])


def test_descriptors_arrive_in_order(pair: Pair, tmp_path: object) -> None:
    """Each is a copy of the same open file."""
    files = [os.open(f"{tmp_path}/{number}", os.O_RDWR | os.O_CREAT) for number in range(3)]
    try:
        send_packet(pair[0], b"x", files)
        data, copies = receive_packet(pair[1], 100)
        assert data == b"x"
        assert [os.fstat(copy).st_ino for copy in copies] == [os.fstat(file).st_ino for file in files]
        assert not set(copies) & set(files)
        close_all(copies)
    finally:
        close_all(files)


def test_descriptors_are_closed_on_exec(pair: Pair) -> None:
    """From the first moment on: another thread may fork and exec meanwhile."""
    send_packet(pair[0], b"x", [0])
    _, (copy,) = receive_packet(pair[1], 100)
    assert fcntl.fcntl(copy, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert not os.get_inheritable(copy)
    os.close(copy)


def test_as_many_as_the_kernel_takes_fit_into_one_packet(pair: Pair) -> None:
    """SCM_MAX_FD; one more is refused by the kernel."""
    send_packet(pair[0], b"x", [0] * MAX_DESCRIPTORS)
    _, copies = receive_packet(pair[1], 100)
    assert len(copies) == MAX_DESCRIPTORS
    close_all(copies)
    with pytest.raises(OSError, match=r"."):
        send_packet(pair[0], b"x", [0] * (MAX_DESCRIPTORS + 1))


def test_lost_descriptors_are_an_error_and_leak_nothing(pair: Pair) -> None:
    """A process that may hold no more of them says so, closes those that came, and goes on."""
    send_packet(pair[0], b"x", [0] * 50)
    send_packet(pair[0], b"next")
    before = open_descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    tenth_free = [number for number in range(soft) if str(number) not in before][9]
    resource.setrlimit(resource.RLIMIT_NOFILE, (tenth_free + 1, hard))
    try:
        with pytest.raises(TruncatedDescriptors, match="may open no more") as raised:
            receive_packet(pair[1], 100)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert isinstance(raised.value, RPCClusterError)
    assert open_descriptors() == before
    assert receive_packet(pair[1], 100) == (b"next", [])


def test_nothing_there_does_not_block(pair: Pair) -> None:
    """Though the socket itself is a blocking one."""
    with pytest.raises(BlockingIOError):
        receive_packet(pair[1], 100)


def test_no_room_does_not_block(pair: Pair) -> None:
    """The sender is told, whatever mode its socket has."""
    with pytest.raises(BlockingIOError):
        while True:
            send_packet(pair[0], b"x")


def test_a_dead_peer_raises_no_signal(pair: Pair) -> None:
    """EPIPE as an error, never as SIGPIPE."""
    pair[1].close()
    with pytest.raises(BrokenPipeError):
        send_packet(pair[0], b"x")


def test_the_end_is_an_empty_packet(pair: Pair) -> None:
    """Again and again."""
    pair[0].close()
    assert receive_packet(pair[1], 100) == (b"", [])
    assert receive_packet(pair[1], 100) == (b"", [])
