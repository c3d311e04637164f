"""How far a TCP stream was read and written, as the kernel counts it for whoever has a copy of the socket. Linux.

What a process had taken from a socket and given to it stands in no memory of the process for sure, since it may have
been killed between the system call and its note of it. The kernel's counters are exact, also from outside.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct
import sys
import termios
from typing import NamedTuple

__all__ = ["COUNTS_STREAMS", "StreamCounters", "stream_counters"]

#: Whether the kernel tells what `stream_counters` needs.
COUNTS_STREAMS = sys.platform == "linux"

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
