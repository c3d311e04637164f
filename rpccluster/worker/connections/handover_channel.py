"""The channel on which a worker and its master exchange moving connections and replies.

Runs in the worker, on the loop's callbacks. A channel never blocks: a message without room waits for it, and one that
lacks a descriptor is tried again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import Message, Reply
from rpccluster.ipc.packets import Packet
from rpccluster.system import READABLE, WRITABLE

__all__ = ["HandoverChannel"]

BARRED_SECONDS = 0.02  # until the channel is tried again when its user has too many descriptors in flight


class HandoverChannel:
    """The worker's end of the channel on which connections, and replies to their calls, go to other workers."""

    def __init__(self, loop: Any, channel: Channel) -> None:
        self._channel = channel
        self._hear: Callable[[Message, list[int]], object] | None = None  # nobody listens yet
        self._kept_back: list[Reply] = []  # for which no descriptor could be had
        self._when_said: list[Callable[[], object]] = []
        self._reader = loop.io(channel.fileno(), READABLE)
        self._writer = loop.io(channel.fileno(), WRITABLE)
        self._retry = loop.timer(0.0, BARRED_SECONDS)  # repeating: libev forgets the time of one that fires once

    @property
    def is_quiet(self) -> bool:
        """Whether the master has, or can read, every message."""
        return not (self._channel.has_unsent or self._kept_back)

    def listen(self, hear: Callable[[Message, list[int]], object]) -> None:
        """Call ``hear`` with each message that comes, and its descriptors."""
        self._hear = hear
        self._reader.start(self.hear_what_has_come)

    def hear_what_has_come(self) -> None:
        """Hear the messages that have come, without waiting for the loop. Raises as `Channel.receive` does."""
        hear = self._hear
        if hear is not None:
            for message, descriptors in self._channel.receive():
                hear(message, descriptors)

    def say(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send or queue ``message``, with copies of ``descriptors``.

        Raises OSError, and sends nothing, if it is long and has no memory file, or a descriptor cannot be copied.
        """
        self._channel.send(message, descriptors)
        self._mind_writing()

    def pack(self, message: Message, descriptors: Sequence[int]) -> Packet:
        """Make the packet that `post` takes. Raises OSError if it is long and has no memory file."""
        return self._channel.pack(message, descriptors)

    def post(self, packet: Packet) -> None:
        """Send or queue ``packet``, and own its descriptors from now on. Never fails."""
        self._channel.post(packet)
        self._mind_writing()

    def pass_on(self, reply: Reply) -> None:
        """Send ``reply`` to the worker that has its connection. A long one needs a descriptor, and waits for one."""
        try:
            self.say(reply)
        except OSError:
            self._kept_back.append(reply)
            self._retry.again(self._on_writable)

    def when_said(self, do: Callable[[], object]) -> None:
        """Call ``do`` as soon as the master can read every message so far: now, or later."""
        if self._channel.has_unsent:
            self._when_said.append(do)
        else:
            do()

    def _mind_writing(self) -> None:
        if self._channel.wants_to_write:
            self._writer.start(self._on_writable)
        else:
            self._writer.stop()
        if self._channel.is_barred or self._kept_back:
            self._retry.again(self._on_writable)
        else:
            self._retry.stop()

    def _on_writable(self) -> None:
        self._channel.flush()
        kept_back, self._kept_back = self._kept_back, []
        for reply in kept_back:
            self.pass_on(reply)
        self._mind_writing()
        if not self._channel.has_unsent:
            due, self._when_said = self._when_said, []
            for do in due:
                do()

    def close(self) -> None:
        """Stop watching it. The channel itself stays open."""
        for watcher in (self._reader, self._writer, self._retry):
            watcher.stop()
            watcher.close()
