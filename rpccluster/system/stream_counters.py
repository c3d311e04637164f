"""How far a stream was read and written, as the kernel counts it for whoever has a copy of the socket. Linux.

What a process had taken from a socket and given to it stands in no memory of the process for sure, since it may have
been killed between the system call and its note of it. The kernel's counters are exact, also from outside. It has them
for TCP. Of a Unix socket it lowers the peek offset (socket(7)) by each byte that is read, whether anybody peeks or not.
"""

from __future__ import annotations

import array
import fcntl
import functools
import select
import socket
import struct
import sys
import termios
from typing import NamedTuple

__all__ = ["COUNTS_STREAMS", "StreamCounters", "UnixState", "counts_unix_sockets", "stream_counters", "unix_state"]

#: Whether the kernel tells what `stream_counters` needs.
COUNTS_STREAMS = sys.platform == "linux"

_PEEK_OFF = 42  # SO_PEEK_OFF of asm-generic/socket.h

_LOOKS = 100  # until two looks agree; a dead owner reads nothing more, and only segments of the peer come between

# struct tcp_info of linux/tcp.h: tcpi_state, then tcpi_bytes_received, tcpi_notsent_bytes, tcpi_bytes_sent and
# tcpi_bytes_retrans; the last two came with Linux 4.19.
_INFO = struct.Struct("=B127xQ8xI52xQQ")
_ESTABLISHED, _FIN_WAIT_1, _CLOSE_WAIT, _LAST_ACK, _CLOSING = 1, 4, 8, 9, 11  # net/tcp_states.h
_CLOSED = 7
_PEER_HAS_ENDED = frozenset([_CLOSE_WAIT, _LAST_ACK, _CLOSING])
_WE_HAVE_ENDED = frozenset([_FIN_WAIT_1, _LAST_ACK, _CLOSING])


class StreamCounters(NamedTuple):
    """The bytes that were read from a TCP socket and written to it since its connection began.

    ``is_open`` says whether both may go on: this side has not ended its own direction, and nothing has broken it.
    """

    read: int
    written: int
    is_open: bool


class UnixState(NamedTuple):
    """The peek offset of a Unix socket (-1: it has none), and whether both directions may go on, as above.

    One whose peer has gone for good may go on: what that has left is yet to be read.
    """

    peek_offset: int
    is_open: bool


@functools.cache
def counts_unix_sockets() -> bool:
    """Return whether reading lowers the peek offset of a Unix socket here, which is tried once."""
    one, other = socket.socketpair()
    with one, other:
        try:
            one.setsockopt(socket.SOL_SOCKET, _PEEK_OFF, 1000)
            other.send(b"three")
            return one.recv(3) == b"thr" and unix_state(one).peek_offset == 997
        except OSError:
            return False


def unix_state(sock: socket.socket) -> UnixState:
    """Return the state of ``sock``. Raises OSError if this is no connected Unix socket, or the kernel is too old."""
    offset = sock.getsockopt(socket.SOL_SOCKET, _PEEK_OFF)
    try:
        sock.send(b"", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)  # nothing is sent
    except BrokenPipeError:
        poll = select.poll()
        poll.register(sock, 0)
        return UnixState(offset, any(events & select.POLLHUP for _, events in poll.poll(0)))
    return UnixState(offset, True)


def stream_counters(sock: socket.socket) -> StreamCounters | None:
    """Return the counters of ``sock``, whose owner neither reads nor writes at present; None if it is closed.

    Bytes that the kernel still holds for the peer count as written. Urgent data would count as read. Raises OSError if
    this is no TCP socket, or the kernel is too old.
    """
    before = _info(sock)
    for _ in range(_LOOKS):
        unread = array.array("i", [0])
        fcntl.ioctl(sock.fileno(), termios.FIONREAD, unread)
        after = _info(sock)
        if before[:2] == after[:2]:
            return _counters(after, unread[0])
        before = after
    raise OSError("the peer sends faster than its stream can be counted")


def _info(sock: socket.socket) -> tuple[int, int, int, int, int]:
    data = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    if len(data) < _INFO.size:
        raise OSError("the kernel does not count what a TCP socket has sent")
    found: tuple[int, int, int, int, int] = _INFO.unpack(data)
    return found


def _counters(info: tuple[int, int, int, int, int], unread: int) -> StreamCounters | None:
    state, received, not_sent, sent, sent_again = info
    if state == _CLOSED:
        return None
    written = sent - sent_again + not_sent
    if state in _WE_HAVE_ENDED and not_sent:
        written -= 1  # our FIN, which waits behind the rest
    return StreamCounters(received - unread - (state in _PEER_HAS_ENDED), written, state in (_ESTABLISHED, _CLOSE_WAIT))
