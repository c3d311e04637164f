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
from typing import Any

from rpccluster.errors import TruncatedDescriptors, UnknownMessage
from rpccluster.ipc.fdpass import IN_MEMORY_FILE, memory_file, read_memory_file, receive_packet, send_packet
from rpccluster.ipc.messages import Message, Refused, decode, encode
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
        self.is_barred = False  # the user has as many descriptors in flight as it may: flush again in a while

    def fileno(self) -> int:
        """The descriptor to watch; -1 after `close`."""
        return self._socket.fileno()

    @property
    def has_unsent(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._outbox) and not self.is_closed

    @property
    def wants_to_write(self) -> bool:
        """Whether something waits for room: watch for writing, then call `flush`."""
        return self.has_unsent and not self.is_barred

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send ``message``, or queue it if there is no room; then descriptors are copied. A dead peer is no error.

        Raises OSError if a copy is needed and this process may hold no more.
        """
        data, passed = encode(message), list(descriptors)
        if len(data) > LARGEST_PACKET:
            passed.append(memory_file(data))
            data = IN_MEMORY_FILE + encode(_stub(message))
        try:
            if self._outbox or not self._send(data, passed):  # those before it wait for room, too
                self._outbox.append((data, [os.dup(descriptor) for descriptor in passed]))
        finally:
            for descriptor in passed[len(descriptors) :]:
                os.close(descriptor)

    def flush(self) -> None:
        """Send what is queued, as far as there is room."""
        self.is_barred = False
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
            self.is_barred = error.errno == errno.ETOOMANYREFS
            return not self.is_barred
        return True

    def unsend(self) -> list[Message]:
        """Take back what is queued and has not been sent; its descriptors are closed."""
        taken: list[Message] = []
        while self._outbox:
            data, descriptors = self._outbox.popleft()
            taken.append(_decoded(data, descriptors))
            for descriptor in descriptors:
                os.close(descriptor)
        return taken

    def receive(self) -> list[tuple[Message, list[int]]]:
        """Every message that is there, with its descriptors, which are the caller's from now on.

        A dead peer's channel raises ECONNRESET before the messages it had queued: read on to the end. What cannot
        be understood is logged and dropped: it comes from another version, or from a service that wrote here. If it
        came with descriptors the sender is told: it has kept its own.
        A process that may hold no more descriptors gets the message without any; of a long one a stub.
        """
        found: list[tuple[Message, list[int]]] = []
        while not self.is_closed:
            try:
                data, descriptors = self._receive_packet()
                if data:
                    found.append((_decoded(data, descriptors), descriptors))
                else:
                    self.is_closed = True
            except BlockingIOError:
                break
            except ConnectionResetError:
                continue
            except UnknownMessage as error:
                logger.error("Dropped a message between processes: %s", error)
                if error.refused is not None:
                    self.send(Refused(error.refused))
        return found

    def _receive_packet(self) -> tuple[bytes, list[int]]:
        try:
            return receive_packet(self._socket, _PACKET_BYTES)
        except TruncatedDescriptors as error:
            logger.error("A message came without its descriptors: %s", error)
            return error.data, []

    def close(self) -> None:
        """Close this end and drop what is queued."""
        self.is_closed = True
        while self._outbox:
            for descriptor in self._outbox.popleft()[1]:
                os.close(descriptor)
        self._socket.close()


def _stub(message: Any) -> Message:
    """``message`` without its bytes: what is left of it if its memory file cannot be received."""
    stub: Message = type(message)(*(b"" if isinstance(value, bytes) else value for value in message))
    return stub


def _decoded(data: bytes, descriptors: list[int]) -> Message:
    """The message in ``data``, or in the memory file, which is taken from ``descriptors``.

    Raises `UnknownMessage`; then the descriptors are closed, and it tells what was refused with them.
    """
    try:
        if data.startswith(IN_MEMORY_FILE):
            data = read_memory_file(descriptors.pop()) if descriptors else data[len(IN_MEMORY_FILE) :]
        return decode(data)
    except UnknownMessage as error:
        if not descriptors:
            error.refused = None
        for descriptor in descriptors:
            os.close(descriptor)
        raise


def channel_pair() -> tuple[Channel, Channel]:
    """The two ends of a new channel."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(one), Channel(other)
