"""An upgrade as the new master sees it: when it takes over, and what it does when the old one fails."""

from __future__ import annotations

import os
from collections.abc import Iterator

import msgpack
import pytest

from rpccluster.ipc.channel import Channel, channel_pair
from rpccluster.ipc.fdpass import receive_packet, send_packet
from rpccluster.ipc.messages import PROTOCOL, Adopted, Asked, Go, Message, Refused, Serving, TookOver
from rpccluster.master.loop import Loop
from rpccluster.master.upgrade.old_master import Event, Gave, GaveUp, MayTakeOver, OldMaster, OldMasterEnded


class Began:
    """A new master; ``old`` is the old one's end of the channel."""

    def __init__(self, protocol: int = PROTOCOL) -> None:
        self.loop = Loop()
        self.happened: list[Event] = []
        self.old, self.channel = channel_pair()
        self.old_master = OldMaster(self.loop, self.channel, protocol, self.note)

    def note(self, event: Event) -> None:
        self.happened.append(event)
        if isinstance(event, MayTakeOver):
            self.old_master.say_took_over(["plugin:x"])

    def gave(self, message: Message) -> Gave:
        return Gave(self.channel, message, [])

    def hears(self) -> None:
        self.loop.turn(0)

    def said(self) -> list[Message]:
        return [message for message, _ in self.old.receive()]


@pytest.fixture
def began() -> Iterator[Began]:
    made = Began()
    yield made
    close(made.old, made.channel)
    made.loop.close()


def close(*channels: Channel) -> None:
    for channel in channels:
        channel.close()


def test_it_says_that_it_has_taken_over(began: Began) -> None:
    """When it has."""
    began.old_master.say_serving(os.getpid())
    assert began.said() == [Serving(os.getpid(), PROTOCOL)]
    began.old.send(Go())
    began.hears()
    assert (began.happened, began.said()) == ([MayTakeOver()], [TookOver(["plugin:x"])])
    began.old.send(Adopted(1))
    began.hears()
    began.old.close()
    began.hears()
    assert began.happened == [MayTakeOver(), began.gave(Adopted(1)), OldMasterEnded()]


def test_an_old_master_that_knows_no_such_message_is_not_told() -> None:
    """It has left when it has said `Go`, and would drop a `Serving` with a field that it does not know."""
    began = Began(protocol=1)
    began.old_master.say_serving(os.getpid())
    assert receive_packet(began.old._socket, 100)[0] == msgpack.packb([6, os.getpid()])
    began.old.send(Go())
    began.hears()
    assert (began.happened, began.said()) == ([MayTakeOver()], [])
    close(began.old, began.channel)


@pytest.mark.parametrize("protocol, said", [(1, []), (PROTOCOL, [Asked("term")])])
def test_it_says_why_it_ends(protocol: int, said: list[Message]) -> None:
    """So that its end is no crash; one that has ended itself hears nothing."""
    began = Began(protocol)
    began.old_master.say_why_it_ends("term")
    assert began.said() == said
    began.old.close()
    began.hears()
    began.old_master.say_why_it_ends("term")
    close(began.channel)


def test_what_it_cannot_understand_it_refuses(began: Began) -> None:
    """A later version gives connections in a message of another kind: the old master keeps them."""
    read_end, write_end = os.pipe()
    began.old.send(Go())
    began.hears()
    send_packet(began.old._socket, msgpack.packb([99, 5, "a connection"]), [read_end])
    began.hears()
    assert (began.happened, began.said()) == ([MayTakeOver()], [TookOver(["plugin:x"]), Refused(5)])
    os.close(read_end)
    with pytest.raises(BrokenPipeError):  # it has closed its copy
        os.write(write_end, b"x")
    os.close(write_end)


def test_an_old_master_that_ends_before_it_said_go(began: Began) -> None:
    """Nothing has changed for anyone."""
    began.old.close()
    began.hears()
    assert began.happened == [GaveUp()]


def test_a_refusal_that_finds_no_room_is_sent_later(began: Began) -> None:
    """The old master keeps a connection that comes in a form of a later version, so it must hear that it has to."""
    began.old.send(Go())
    began.hears()
    said = 1  # that it has taken over
    while not began.channel.has_unsent:
        began.channel.send(Adopted(1))
        said += 1
    with open(os.devnull) as null:
        send_packet(began.old._socket, msgpack.packb([127, 7]), [null.fileno()])
    began.hears()
    found = began.said()
    began.hears()
    found += began.said()
    assert (len(found), found[-1]) == (said + 1, Refused(7))
