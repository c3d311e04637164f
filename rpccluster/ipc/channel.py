"""A channel: one end of a SOCK_SEQPACKET pair that carries messages and descriptors, never blocking.

Owns its socket and its queue. Knows no event loop: its owner watches ``fileno()`` and calls `receive` and `flush`.
End-of-file means that the other process has ended.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any, Callable

from rpccluster.errors import TruncatedDescriptors, UnknownMessage
from rpccluster.ipc.fdpass import receive_packet, send_packet
from rpccluster.ipc.messages import Message, Refused
from rpccluster.ipc.packets import Packet, Passing, close_all, message_of, packed, unopened
from rpccluster.log import logger

__all__ = ["Channel", "channel_pair"]

_PACKET_BYTES = 262_144
LARGEST_PACKET = 131_072  # a larger packet may never fit, and travels in a memory file
_SURE_BYTES = 4096  # always fits: the kernel makes no smaller buffer, socket(7)
_OVERHEAD_BYTES = 32  # of a packet, by the kernel's count: unix_dgram_sendmsg in net/unix/af_unix.c

_LATER = {errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM}  # the kernel has no room, and sends no event when it has
_GONE = {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF}


class Channel:
    """One end of a channel. ``is_closed`` turns true at end-of-file, after the last message."""

    def __init__(self, sock: socket.socket, packet_bytes: int = _PACKET_BYTES) -> None:
        """No packet that comes is longer than ``packet_bytes``."""
        self._packet_bytes = packet_bytes
        sock.setblocking(False)
        self._socket = sock
        self._outbox: deque[Packet] = deque()
        self.is_closed = False
        self.is_barred = False  # the kernel has no room, for instance for descriptors in flight: flush again later

    def fileno(self) -> int:
        """Return the descriptor to watch; -1 after `close`."""
        return self._socket.fileno()

    @property
    def has_unsent(self) -> bool:
        """Whether a packet waits to be sent."""
        return bool(self._outbox) and not self.is_closed

    @property
    def wants_to_write(self) -> bool:
        """Whether a packet waits for room: watch for writing, then call `flush`."""
        return self.has_unsent and not self.is_barred

    def send(self, message: Passing, descriptors: Sequence[int] = ()) -> None:
        """Send ``message``, or queue it with copies of its descriptors. A dead peer is no error.

        Raises OSError, and sends nothing, if it cannot copy a descriptor or make a memory file.
        """
        packet = self.pack(message, descriptors)
        made = packet.descriptors[len(descriptors) :]
        try:
            if not self._outbox and self._send(packet):
                close_all(made)
            else:
                self._outbox.append(Packet(packet.data, [*_copies(descriptors), *made]))
        except OSError:
            close_all(made)
            raise

    def pack(self, message: Passing, descriptors: Sequence[int] = ()) -> Packet:
        """Make the packet that `post` takes. Raises OSError if it cannot make a memory file."""
        return packed(message, descriptors, self._fits)

    def post(self, packet: Packet) -> None:
        """Send or queue ``packet``, and own its descriptors from now on. Never fails."""
        if not self._outbox and self._send(packet):
            close_all(packet.descriptors)
        else:
            self._outbox.append(packet)

    def flush(self) -> None:
        """Send the queue, as far as there is room."""
        self.is_barred = False
        while self._outbox and self._send(self._outbox[0]):
            close_all(self._outbox.popleft().descriptors)

    def _fits(self, size: int) -> bool:
        if size <= _SURE_BYTES:
            return True
        room: int = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - _OVERHEAD_BYTES
        return size <= min(LARGEST_PACKET, room, self._packet_bytes)

    def _send(self, packet: Packet) -> bool:
        """Send one packet. Returns False if it has to wait."""
        try:
            send_packet(self._socket, packet.data, packet.descriptors)
        except BlockingIOError:
            return False
        except OSError as error:
            self.is_barred = error.errno in _LATER
            if not self.is_barred and error.errno not in _GONE:
                logger.error("Cannot send a message to another process: %s", error)
            return not self.is_barred  # if the peer has ended, `receive` shows it, after its last messages
        return True

    def unsend(self) -> list[tuple[Passing, list[int]]]:
        """Take back the unsent queue, in the form in which `receive_unopened` returns messages."""
        taken, self._outbox = self._outbox, deque()
        return [(unopened(packet.data, packet.descriptors), packet.descriptors) for packet in taken]

    def receive(self) -> list[tuple[Message, list[int]]]:
        """Receive every message that has come, with its descriptors, which belong to the caller from now on.

        A dead peer's channel raises ECONNRESET before the messages that it had queued: this reads on to the end. An
        unknown message, from another version or from a service that wrote here, is logged and dropped. If it came with
        descriptors, the sender gets a `Refused`, since it has kept its own copies.
        If this process may open no more descriptors, a message comes without any, and a long one as its stub; so does
        a long one that cannot be read. Raises OSError or MemoryError if nothing can be received.
        """
        return self._receive(message_of)

    def receive_unopened(self) -> list[tuple[Passing, list[int]]]:
        """Receive messages to pass on: a long one comes as its stub, with its memory file as the last descriptor."""
        return self._receive(unopened)

    def _receive(self, read: Callable[[bytes, list[int]], Any]) -> list[tuple[Any, list[int]]]:
        found: list[tuple[Any, list[int]]] = []
        while not self.is_closed:
            try:
                data, descriptors = self._receive_packet()
            except BlockingIOError:
                break
            except ConnectionResetError:
                continue
            except (OSError, MemoryError):
                if not found:
                    raise
                break  # the messages found hold descriptors, so return them; the next call meets the error again
            if data:
                found += self._read(read, data, descriptors)
            else:
                self.is_closed = True
        return found

    def _read(
        self, read: Callable[[bytes, list[int]], Any], data: bytes, descriptors: list[int]
    ) -> list[tuple[Any, list[int]]]:
        """Read the message of one packet; a faulty packet is logged and yields none."""
        has_descriptors = bool(descriptors)
        try:
            return [(read(data, descriptors), descriptors)]
        except UnknownMessage as error:
            logger.error("Dropped a message between processes: %s", error)
            if error.refused is not None:
                self.send(Refused(error.refused))
        except (OSError, MemoryError) as error:
            logger.error("Cannot read a message between processes: %r", error)
            close_all(descriptors)
            if has_descriptors:
                return self._read(read, data, [])  # as if the descriptors had not come, so that the sender learns of it
        return []

    def _receive_packet(self) -> tuple[bytes, list[int]]:
        try:
            return receive_packet(self._socket, self._packet_bytes)
        except TruncatedDescriptors as error:
            logger.error("A message came without its descriptors: %s", error)
            return error.data, []

    def close(self) -> None:
        """Close this end and drop what is queued."""
        self._drop()
        self._socket.close()

    def forget(self) -> None:
        """Drop this end without closing its descriptor, whose number belongs to another file by now."""
        self._drop()
        self._socket.detach()

    def _drop(self) -> None:
        self.is_closed = True
        while self._outbox:
            close_all(self._outbox.popleft().descriptors)


def _copies(descriptors: Sequence[int]) -> list[int]:
    """Copy each descriptor. Raises OSError, and leaves no copy behind then."""
    made: list[int] = []
    try:
        for descriptor in descriptors:
            made.append(os.dup(descriptor))
    except OSError:
        close_all(made)
        raise
    return made


def channel_pair(packet_bytes: int = _PACKET_BYTES) -> tuple[Channel, Channel]:
    """Make a channel, whose packets have ``packet_bytes`` at most, and return its two ends."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(one, packet_bytes), Channel(other, packet_bytes)
