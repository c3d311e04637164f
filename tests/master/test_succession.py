"""An upgrade as the old master sees it, stage by stage, and what either master does when the other one fails."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from rpccluster.ipc.channel import Channel, channel_pair
from rpccluster.ipc.fdpass import receive_packet, send_packet
from rpccluster.ipc.messages import PROTOCOL, Adopted, Go, Message, Refused, Serving, TookOver
from rpccluster.master.changes.inherited import Upgrade
from rpccluster.master.changes.succession import COMMIT_SECONDS, Heir, Stage, Succession
from rpccluster.master.loop import Loop
from rpccluster.system import System

NEW_MASTER = 4711


class MadeUpSystem(System):
    """The time stands still until it is set; whom it kills is noted."""

    def __init__(self) -> None:
        self.now = 100.0
        self.killed: list[int] = []

    def monotonic(self) -> float:
        return self.now

    def kill(self, pid: int, signum: int) -> None:
        self.killed.append(pid)


class Rig:
    """An old master's succession; ``new`` is the new master's end of the channel."""

    def __init__(self) -> None:
        self.system, self.loop = MadeUpSystem(), Loop()
        self.happened: list[Any] = []
        self.succession = Succession(
            self.system,
            self.loop,
            lambda channel: self.happened.append("taken over"),
            self.happened.append,
            lambda: self.happened.append("lost"),
            lambda: self.happened.append("undone"),
        )
        self.begin()

    def begin(self) -> None:
        self.old, self.new = channel_pair()
        self.succession.begin(lambda: Upgrade(NEW_MASTER, self.old, self.system.now + 300), "")

    def says(self, *messages: Message) -> list[Message]:
        """The new master says these, and is heard; what it hears then."""
        for message in messages:
            self.new.send(message)
        self.loop.turn(0)
        return [message for message, _ in self.new.receive()]

    def dies(self) -> None:
        self.new.close()
        self.loop.turn(0)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    for channel in (made.old, made.new):
        with contextlib.suppress(OSError):
            channel.close()
    made.loop.close()


def test_an_upgrade_is_done_when_the_new_master_says_so(rig: Rig) -> None:
    """Until then this one goes on."""
    assert rig.succession.stage is Stage.BOOTING
    assert rig.says(Serving(NEW_MASTER, PROTOCOL)) == [Go()]
    assert (rig.succession.stage, rig.succession.outcome, rig.happened) == (Stage.COMMITTING, None, [])
    rig.says(TookOver(), Adopted(5))
    assert (rig.succession.outcome, rig.succession.heir, rig.happened) == ("", NEW_MASTER, ["taken over"])
    rig.says(Adopted(6))
    rig.dies()
    assert rig.happened == ["taken over", Adopted(6), "lost"]


def test_a_new_master_that_dies_while_it_boots(rig: Rig) -> None:
    """Nothing has changed, and another upgrade may begin."""
    rig.dies()
    assert rig.succession.outcome == "the new master could not start; its own log lines say why"
    assert (rig.succession.stage, rig.happened) == (Stage.NONE, [])
    rig.begin()
    assert rig.says(Serving(NEW_MASTER, PROTOCOL)) == [Go()]


@pytest.mark.parametrize("last_words", [[], [TookOver()]], ids=["silent", "had taken over"])
@pytest.mark.parametrize("is_heard_at_once", [False, True])
def test_a_new_master_that_dies_when_it_was_to_take_over(
    rig: Rig, last_words: list[Message], is_heard_at_once: bool
) -> None:
    """Whether it had begun to is unknown: what it may have done is undone, and this one goes on."""
    if not is_heard_at_once:
        rig.says(Serving(NEW_MASTER, PROTOCOL))
    for message in [Serving(NEW_MASTER, PROTOCOL)] * is_heard_at_once + last_words:
        rig.new.send(message)
    rig.dies()
    assert rig.succession.outcome == "the new master ended before it had taken over"
    assert (rig.succession.stage, rig.happened) == (Stage.NONE, ["undone"])


def test_a_new_master_that_does_not_take_over_in_time_is_given_up(rig: Rig) -> None:
    """It may be stopped: killed, and what it may have done is undone."""
    rig.says(Serving(NEW_MASTER, PROTOCOL))
    rig.succession.check_deadline(rig.system.now + COMMIT_SECONDS)
    assert rig.system.killed == []
    rig.succession.check_deadline(rig.system.now + COMMIT_SECONDS + 1)
    assert (rig.system.killed, rig.happened) == ([NEW_MASTER], ["undone"])


def test_a_new_master_that_has_taken_over_is_never_given_up(rig: Rig) -> None:
    """Everything is its own."""
    rig.says(Serving(NEW_MASTER, PROTOCOL))
    rig.says(TookOver())
    rig.succession.check_deadline(rig.system.now + 1e6)
    rig.succession.give_up("this master stops")
    assert (rig.system.killed, rig.succession.outcome) == ([], "")


def test_a_new_master_that_is_too_old_is_refused_before_it_gets_anything(rig: Rig) -> None:
    """A version before this one says no protocol; it would drop what it does not understand, connections too."""
    send_packet(rig.new._socket, msgpack.packb([6, NEW_MASTER]))
    assert rig.says() == []
    assert rig.succession.outcome is not None
    assert rig.succession.outcome.startswith("the new master speaks protocol 1, expected 2 or later")
    assert (rig.system.killed, rig.happened) == ([NEW_MASTER], [])


def test_a_later_version_may_say_more(rig: Rig) -> None:
    """Fields of messages we know, and messages we do not know."""
    send_packet(rig.new._socket, msgpack.packb([6, NEW_MASTER, 99, "and", {"more": 1}]))
    assert rig.says() == [Go()]
    for packet in ([200, "news"], [16, "how it went"]):
        send_packet(rig.new._socket, msgpack.packb(packet))
    rig.says()
    assert rig.succession.stage is Stage.DONE


# -- the new master's side


class Began:
    """A new master; ``old`` is the old one's end of the channel."""

    def __init__(self, protocol: int = PROTOCOL) -> None:
        self.loop, self.happened = Loop(), []  # type: ignore[var-annotated]
        self.old, self.channel = channel_pair()
        self.heir = Heir(
            self.loop,
            self.channel,
            lambda: self.happened.append("go"),
            lambda: self.happened.append("given up"),
            lambda channel, message, descriptors: self.happened.append(message),
            lambda: self.happened.append("alone"),
            protocol=protocol,
        )

    def hears(self) -> None:
        self.loop.turn(0)

    def said(self) -> list[Message]:
        return [message for message, _ in self.old.receive()]


@pytest.fixture
def began() -> Iterator[Began]:
    made = Began()
    yield made
    close(made.old, made.channel)


def close(*channels: Channel) -> None:
    for channel in channels:
        channel.close()


def test_it_says_that_it_has_taken_over(began: Began) -> None:
    """When it has."""
    began.heir.say_serving()
    assert began.said() == [Serving(os.getpid(), PROTOCOL)]
    began.old.send(Go())
    began.hears()
    assert (began.happened, began.said()) == (["go"], [TookOver()])
    began.old.send(Adopted(1))
    began.hears()
    began.old.close()
    began.hears()
    assert began.happened == ["go", Adopted(1), "alone"]


def test_an_old_master_that_knows_no_such_message_is_not_told() -> None:
    """It has left when it has said `Go`, and would drop a `Serving` with a field that it does not know."""
    began = Began(protocol=1)
    began.heir.say_serving()
    assert receive_packet(began.old._socket, 100)[0] == msgpack.packb([6, os.getpid()])
    began.old.send(Go())
    began.hears()
    assert (began.happened, began.said()) == (["go"], [])
    close(began.old, began.channel)


def test_what_it_cannot_understand_it_refuses(began: Began) -> None:
    """A later version gives connections in a message of another kind: the old master keeps them."""
    read_end, write_end = os.pipe()
    began.old.send(Go())
    began.hears()
    send_packet(began.old._socket, msgpack.packb([99, 5, "a connection"]), [read_end])
    began.hears()
    assert (began.happened, began.said()) == (["go"], [TookOver(), Refused(5)])
    os.close(read_end)
    with pytest.raises(BrokenPipeError):  # it has closed its copy
        os.write(write_end, b"x")
    os.close(write_end)


def test_one_message_that_cannot_be_heeded_takes_no_other_along(rig: Rig, began: Began) -> None:
    """On either side: a connection may be among those behind it."""

    def note(happened: list[Any], message: Message) -> None:
        happened.append(message)
        if message == Adopted(1):
            raise OSError("no descriptor left")

    began.heir._on_message = lambda channel, message, descriptors: note(began.happened, message)
    began.old.send(Go())
    rig.succession._on_message = lambda message: note(rig.happened, message)
    rig.says(Serving(NEW_MASTER, PROTOCOL))
    rig.says(TookOver())
    for number in (1, 2):
        began.old.send(Adopted(number))
        rig.new.send(Adopted(number))
    began.hears()
    rig.says()
    assert began.happened == ["go", Adopted(1), Adopted(2)]
    assert rig.happened == ["taken over", Adopted(1), Adopted(2)]


def test_an_old_master_that_ends_before_it_said_go(began: Began) -> None:
    """Nothing has changed for anyone."""
    began.old.close()
    began.hears()
    assert began.happened == ["given up"]
