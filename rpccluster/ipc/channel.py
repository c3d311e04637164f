"""A channel: one end of a SOCK_SEQPACKET pair that carries messages and descriptors, never blocking.

Owns its socket and what is queued for it. Knows no event loop: its owner watches ``fileno()`` and calls
`receive` and `flush`. End-of-file means that the other process is gone.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Sequence

from rpccluster.errors import TruncatedDescriptors, UnknownMessage
from rpccluster.ipc.fdpass import IN_MEMORY_FILE, memory_file, read_memory_file, receive_packet, send_packet
from rpccluster.ipc.messages import Message, decode, encode
from rpccluster.log import logger

__all__ = ["Channel", "channel_pair"]

_PACKET_BYTES = 262_144
LARGEST_PACKET = 131_072  # what is bigger than this may never fit, and travels in a memory file


class Channel:
    """One end of a channel. ``is_closed`` turns true at end-of-file, after the last message was read."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._outbox: deque[tuple[bytes, list[int]]] = deque()
        self.is_closed = False

    def fileno(self) -> int:
        """The descriptor to watch; -1 after `close`."""
        return self._socket.fileno()

    @property
    def wants_to_write(self) -> bool:
        """Whether something waits for room: watch for writing, then call `flush`."""
        return bool(self._outbox) and not self.is_closed

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send ``message``, or queue it if there is no room; then descriptors are copied. A dead peer is no error.

        Raises OSError if a copy is needed and this process may hold no more.
        """
        data, passed = encode(message), list(descriptors)
        if len(data) > LARGEST_PACKET:
            passed.append(memory_file(data))
            data = IN_MEMORY_FILE
        try:
            if self._outbox or not self._send(data, passed):
                self._outbox.append((data, [os.dup(descriptor) for descriptor in passed]))
        finally:
            for descriptor in passed[len(descriptors) :]:
                os.close(descriptor)

    def flush(self) -> None:
        """Send what is queued, as far as there is room."""
        while self._outbox and self._send(*self._outbox[0]):
            for descriptor in self._outbox.popleft()[1]:
                os.close(descriptor)

    def _send(self, data: bytes, descriptors: list[int]) -> bool:
        """Send one packet; False if it has to wait."""
        try:
            send_packet(self._socket, data, descriptors)
        except BlockingIOError:
            return False
        except OSError as error:  # if the peer is gone `receive` will say so, after its last messages
            return error.errno != errno.ETOOMANYREFS  # the user has as many descriptors in flight as it may
        return True

    def unsend(self) -> list[Message]:
        """Take back what is queued and has not been sent; its descriptors are closed."""
        taken: list[Message] = []
        while self._outbox:
            data, descriptors = self._outbox.popleft()
            taken.append(decode(read_memory_file(descriptors.pop()) if data == IN_MEMORY_FILE else data))
            for descriptor in descriptors:
                os.close(descriptor)
        return taken

    def receive(self) -> list[tuple[Message, list[int]]]:
        """Every message that is there, with its descriptors, which are the caller's from now on.

        A dead peer's channel raises ECONNRESET before the messages it had queued: read on to the end. What cannot
        be understood is logged and dropped: it comes from another version, or from a service that wrote here.
        """
        found: list[tuple[Message, list[int]]] = []
        while not self.is_closed:
            try:
                data, descriptors = receive_packet(self._socket, _PACKET_BYTES)
                if data == IN_MEMORY_FILE and descriptors:
                    data = read_memory_file(descriptors.pop())
                if data:
                    found.append((_decoded(data, descriptors), descriptors))
                else:
                    self.is_closed = True
            except BlockingIOError:
                break
            except ConnectionResetError:
                continue
            except (UnknownMessage, TruncatedDescriptors) as error:
                logger.error("Dropped a message between processes: %s", error)
        return found

    def close(self) -> None:
        """Close this end and drop what is queued."""
        self.is_closed = True
        while self._outbox:
            for descriptor in self._outbox.popleft()[1]:
                os.close(descriptor)
        self._socket.close()


def _decoded(data: bytes, descriptors: list[int]) -> Message:
    """The message in ``data``. Raises `UnknownMessage`; then the descriptors are closed."""
    try:
        return decode(data)
    except UnknownMessage:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


def channel_pair() -> tuple[Channel, Channel]:
    """The two ends of a new channel."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(one), Channel(other)
