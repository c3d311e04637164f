"""Sends on channels that the loop watches, and reads back what a worker has not read. Runs in the master."""

from __future__ import annotations

from collections.abc import Sequence

from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import Give
from rpccluster.ipc.packets import Passing, close_all, seen
from rpccluster.master.handover.worker import Worker
from rpccluster.master.loop import Loop

__all__ = ["Sender", "read_back"]


class Sender:
    """Sends messages, or queues them until there is room. A channel whose process has ended is no error."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def send(self, channel: Channel, message: Passing, descriptors: Sequence[int] = ()) -> None:
        """Send ``message`` and keep ``descriptors``.

        Raises OSError, and sends nothing, if it cannot copy a descriptor.
        """
        if not channel.is_closed:
            channel.send(message, descriptors)
            self._mind_writing(channel)

    def hand_on(self, channel: Channel, message: Passing, descriptors: list[int]) -> None:
        """Send ``message`` and give ``descriptors`` away, which needs no copies."""
        if channel.is_closed:
            close_all(descriptors)
        else:
            channel.post(channel.pack(message, descriptors))
            self._mind_writing(channel)

    def take_back(self, worker: Worker) -> list[Give]:
        """Take back the connections that ``worker`` has not read; send its other unread messages again."""
        taken, others = [], []
        for passing, descriptors in read_back(worker):
            message = seen(passing)
            if isinstance(message, Give):
                close_all(descriptors)
                taken.append(message)
            else:
                others.append((passing, descriptors))
        for passing, descriptors in others:
            self.hand_on(worker.connections, passing, descriptors)
        return taken

    def _mind_writing(self, channel: Channel) -> None:
        self._loop.guard.attempt("watch a channel", self._loop.mind_writing, channel)


def read_back(worker: Worker) -> list[tuple[Passing, list[int]]]:
    """Read back, in order, all messages that ``worker`` has not read from its connection channel."""
    return [*worker.far_end.receive_unopened(), *worker.connections.unsend()]
