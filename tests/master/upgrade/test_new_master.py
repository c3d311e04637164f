"""An upgrade as the old master sees it, stage by stage, and what it does when the new one fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import msgpack
import pytest

from rpccluster.ipc.channel import channel_pair
from rpccluster.ipc.fdpass import send_packet
from rpccluster.ipc.messages import PROTOCOL, Adopted, Asked, Go, Message, Serving, TookOver
from rpccluster.master.loop import Loop
from rpccluster.master.upgrade.new_master import (
    COMMIT_SECONDS,
    TAKEN_BACK,
    Event,
    GoesNext,
    NewMaster,
    NewMasterEnded,
    Said,
    Stage,
    TakenOver,
    Undone,
)
from rpccluster.master.upgrade.starting import Started
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
    """An old master's side; ``new`` is the new master's end of the channel."""

    def __init__(self) -> None:
        self.system, self.loop = MadeUpSystem(), Loop()
        self.happened: list[Event] = []
        self.heard_before: list[Message] | None = None  # by the new master, when it was about to hear `Go`
        self.new_master = NewMaster(self.system, self.loop, self.start, self.note)
        self.new_master.begin()

    def start(self) -> Started:
        self.old, self.new = channel_pair()
        return Started(NEW_MASTER, self.old, self.system.now + 300)

    def note(self, event: Event) -> None:
        if isinstance(event, GoesNext):
            self.heard_before = [message for message, _ in self.new.receive()]
        else:
            self.happened.append(event)

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
    assert rig.new_master.stage is Stage.BOOTING
    assert rig.says(Serving(NEW_MASTER, PROTOCOL)) == [Go()]
    assert (rig.new_master.stage, rig.new_master.is_under_way, rig.happened) == (Stage.COMMITTING, True, [])
    assert rig.heard_before == []  # a master before this one has learned of it before `Go`
    rig.says(TookOver(), Adopted(5))
    assert (rig.new_master.failure, rig.new_master.pid) == ("", NEW_MASTER)
    assert rig.happened == [TakenOver(rig.old), Said(Adopted(5))]  # in this order, also if they come together
    rig.says(Adopted(6))
    rig.dies()
    assert rig.happened == [TakenOver(rig.old), Said(Adopted(5)), Said(Adopted(6)), NewMasterEnded()]


def test_a_new_master_that_dies_while_it_boots(rig: Rig) -> None:
    """Nothing has changed, and another upgrade may begin."""
    rig.dies()
    assert rig.new_master.failure == "the new master could not start; its own log lines say why"
    assert (rig.new_master.stage, rig.happened) == (Stage.NONE, [])
    rig.new_master.begin()
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
    assert rig.new_master.failure == "the new master ended before it had taken over"
    assert (rig.new_master.stage, rig.happened) == (Stage.NONE, [Undone()])


@pytest.mark.parametrize("what", ["term", "usr2"])
@pytest.mark.parametrize("is_heard_at_once", [False, True])
def test_a_new_master_that_has_taken_over_and_ends_in_order_ends_this_one_too(
    rig: Rig, is_heard_at_once: bool, what: str
) -> None:
    """Its end may come together with its last words; the stop was meant for the cluster, or a third one serves."""
    rig.says(Serving(NEW_MASTER, PROTOCOL))
    for message in (TookOver(), Asked(what)):
        rig.new.send(message)
    if not is_heard_at_once:
        rig.loop.turn(0)
    rig.dies()
    assert (rig.new_master.stage, rig.new_master.failure) == (Stage.DONE, "")
    assert rig.happened == [TakenOver(rig.old), NewMasterEnded()]


def test_a_new_master_that_has_taken_its_last_word_back_has_crashed(rig: Rig) -> None:
    """It was to leave everything to a third one, which has failed; then it died itself."""
    rig.says(Serving(NEW_MASTER, PROTOCOL))
    for message in (TookOver(), Asked("usr2"), Asked(TAKEN_BACK)):
        rig.new.send(message)
    rig.dies()
    assert (rig.new_master.stage, rig.happened) == (Stage.NONE, [Undone()])


def test_a_new_master_that_is_stopped_before_it_has_taken_over_changes_nothing(rig: Rig) -> None:
    """Its stop was meant for the upgrade."""
    rig.says(Serving(NEW_MASTER, PROTOCOL))
    rig.new.send(Asked("term"))
    rig.dies()
    assert (rig.new_master.stage, rig.happened) == (Stage.NONE, [Undone()])


def test_a_new_master_that_does_not_take_over_in_time_is_given_up(rig: Rig) -> None:
    """It may be stopped: killed, and what it may have done is undone."""
    rig.says(Serving(NEW_MASTER, PROTOCOL))
    assert rig.new_master.wake_at == rig.system.now + COMMIT_SECONDS
    rig.new_master.check_deadline(rig.new_master.wake_at - 0.1)
    assert rig.system.killed == []
    rig.new_master.check_deadline(rig.new_master.wake_at)
    assert (rig.system.killed, rig.happened) == ([NEW_MASTER], [Undone()])


def test_a_new_master_that_has_taken_over_is_never_given_up(rig: Rig) -> None:
    """Everything is its own."""
    rig.says(Serving(NEW_MASTER, PROTOCOL))
    rig.says(TookOver())
    rig.new_master.check_deadline(rig.system.now + 1e6)
    rig.new_master.give_up("this master stops")
    assert (rig.system.killed, rig.new_master.failure) == ([], "")


def test_a_new_master_that_is_too_old_is_refused_before_it_gets_anything(rig: Rig) -> None:
    """A version before this one says no protocol; it would drop what it does not understand, connections too."""
    send_packet(rig.new._socket, msgpack.packb([6, NEW_MASTER]))
    assert rig.says() == []
    assert rig.new_master.failure.startswith("the new master speaks protocol 1, expected 2 or later")
    assert (rig.system.killed, rig.happened) == ([NEW_MASTER], [])


def test_a_later_version_may_say_more(rig: Rig) -> None:
    """Fields of messages we know, and messages we do not know."""
    send_packet(rig.new._socket, msgpack.packb([6, NEW_MASTER, 99, "and", {"more": 1}]))
    assert rig.says() == [Go()]
    for packet in ([200, "news"], [16, "how it went"]):
        send_packet(rig.new._socket, msgpack.packb(packet))
    rig.says()
    assert rig.new_master.stage is Stage.DONE


def test_what_is_done_while_a_new_master_boots_is_done_by_it_too(rig: Rig) -> None:
    """In its order, when it has taken over; nothing of an upgrade that failed."""
    rig.new_master.pass_on(Asked("scale", 9))
    rig.dies()
    rig.new_master.pass_on(Asked("scale", 5))
    rig.new_master.begin()
    rig.new_master.pass_on(Asked("scale", 4))
    rig.new_master.pass_on(Asked("usr1"))
    assert rig.says(Serving(NEW_MASTER, PROTOCOL)) == [Go()]
    assert rig.says(TookOver()) == [Asked("scale", 4), Asked("usr1")]
    rig.new_master.pass_on(Asked("ttin"))
    assert rig.says() == [Asked("ttin")]


def test_an_upgrade_that_is_refused_starts_nothing(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """For a reason given, or because one is under way: then the answer is that one's."""
    rig.new_master.begin()
    assert rig.new_master.is_under_way
    rig.dies()
    rig.new_master.refuse("the cluster is reloading")
    assert (rig.new_master.failure, rig.new_master.stage) == ("the cluster is reloading", Stage.NONE)
    reasons = ["an upgrade is under way", "the cluster is reloading"]
    assert [f"Upgrade refused: {reason}" for reason in reasons] == [
        record.getMessage() for record in caplog.records if "refused" in record.getMessage()
    ]


def test_there_is_one_upgrade_in_a_masters_life(rig: Rig) -> None:
    """One that asks when the new master has just taken over hears so; no other process is started."""
    rig.says(Serving(NEW_MASTER, PROTOCOL))
    rig.says(TookOver())
    channel = rig.old
    rig.new_master.begin()
    assert (rig.old, rig.new_master.stage) == (channel, Stage.DONE)
    assert rig.new_master.failure == f"the new master (pid: {NEW_MASTER}) has taken over: ask that one"
