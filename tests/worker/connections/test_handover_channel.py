"""The worker's end of the channel for connections that move: what it says, when it can, and what waits for that."""

from __future__ import annotations

import os
from collections.abc import Iterator

import gevent
import pytest
from descriptors import descriptors_left

from rpccluster.ipc.channel import LARGEST_PACKET, channel_pair
from rpccluster.ipc.messages import Accept, Closed, Message, Reply
from rpccluster.worker.connections.handover_channel import HandoverChannel

from ..rig import settle, until


class Ends:
    """Both ends; ``said`` is what the master has read."""

    def __init__(self) -> None:
        self.master, self._channel = channel_pair()
        self.worker = HandoverChannel(gevent.get_hub().loop, self._channel)
        self.said: list[Message] = []

    def fill(self) -> None:
        """Leave no room for what the worker says."""
        while not self._channel.wants_to_write:
            self.worker.say(Accept())

    def read(self) -> list[Message]:
        """What the worker has said; of those that only fill the channel nothing."""
        self.said += [message for message, _ in self.master.receive() if not isinstance(message, Accept)]
        return self.said

    def close(self) -> None:
        self.worker.close()
        self.master.close()
        self._channel.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.close()


def test_what_there_is_room_for_is_said_at_once(ends: Ends) -> None:
    """And whoever waits for that is called at once."""
    done: list[int] = []
    ends.worker.say(Closed(1))
    ends.worker.when_said(lambda: done.append(1))
    assert (ends.read(), done, ends.worker.is_quiet) == ([Closed(1)], [1], True)


def test_what_finds_no_room_waits_for_it(ends: Ends) -> None:
    """In its order; so does whoever waits for it to be said."""
    ends.fill()
    done: list[int] = []
    ends.worker.say(Closed(1))
    ends.worker.when_said(lambda: done.append(1))
    ends.worker.pass_on(Reply(2, 1, b"x"))
    ends.worker.when_said(lambda: done.append(2))
    settle()
    assert (done, ends.worker.is_quiet) == ([], False)
    until(lambda: len(ends.read()) == 2, "it is said")
    assert ends.said == [Closed(1), Reply(2, 1, b"x")]
    until(lambda: done == [1, 2], "they are called")
    assert ends.worker.is_quiet


def test_a_long_reply_is_kept_back_until_there_is_a_descriptor(ends: Ends) -> None:
    """Its memory file cannot be made: it is tried again."""
    reply = Reply(1, 1, b"x" * (LARGEST_PACKET + 1))
    with descriptors_left(0):
        ends.worker.pass_on(reply)
        assert not ends.worker.is_quiet
    until(lambda: ends.read(), "it is sent")
    assert (ends.said, ends.worker.is_quiet) == ([reply], True)


def test_what_comes_is_heard(ends: Ends) -> None:
    """With its descriptors, in its order."""
    heard: list[tuple[Message, int]] = []

    def hear(message: Message, descriptors: list[int]) -> None:
        heard.append((message, len(descriptors)))
        for descriptor in descriptors:
            os.close(descriptor)

    ends.worker.listen(hear)
    ends.master.send(Closed(1))
    ends.master.send(Closed(2), [0])
    until(lambda: len(heard) == 2, "it is heard")
    assert heard == [(Closed(1), 0), (Closed(2), 1)]


def test_it_may_be_closed_at_any_time(ends: Ends) -> None:
    """Twice, and while something waits: nothing more is called."""
    ends.fill()
    done: list[int] = []
    ends.worker.when_said(lambda: done.append(1))
    ends.worker.close()
    ends.worker.close()
    while ends.master.receive():
        pass
    settle()
    assert done == []
