"""Channels: messages in order, none lost, nothing blocks, and the end comes after the last word."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from rpccluster.ipc.channel import Channel, channel_pair
from rpccluster.ipc.fdpass import send_packet
from rpccluster.ipc.messages import Accept, BootFailed, Message, Ready, ReopenLogs, Serving, WantsToRetire

Pair = tuple[Channel, Channel]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two ends."""
    one, other = channel_pair()
    yield one, other
    one.close()
    other.close()


def heard(channel: Channel) -> list[Message]:
    return [message for message, _ in channel.receive()]


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_messages_arrive_in_order_and_both_ways(pair: Pair) -> None:
    """All that are there, with one call."""
    for number in range(50):
        pair[0].send(Serving(number))
    pair[1].send(Accept())
    assert heard(pair[1]) == [Serving(number) for number in range(50)]
    assert heard(pair[0]) == [Accept()]
    assert heard(pair[1]) == []
    assert not pair[1].is_closed


def test_descriptors_travel_with_their_message(pair: Pair) -> None:
    """Copies: the sender may close its own at once, and none is left behind."""
    before = open_descriptors()
    read_end, write_end = os.pipe()
    pair[0].send(Accept())
    pair[0].send(ReopenLogs(), [write_end, read_end])
    os.close(write_end)
    os.close(read_end)
    (_, none), (message, (new_write, new_read)) = pair[1].receive()
    assert (none, message) == ([], ReopenLogs())
    os.write(new_write, b"still the same pipe")
    assert os.read(new_read, 100) == b"still the same pipe"
    os.close(new_write)
    os.close(new_read)
    assert open_descriptors() == before


def test_a_full_channel_queues_and_flushes(pair: Pair) -> None:
    """A pair holds some 278 small packets: nothing blocks, nothing is lost, order stays."""
    one, other = pair
    sent = [WantsToRetire(str(number)) for number in range(1000)]
    for message in sent:
        one.send(message)
    assert one.wants_to_write
    received = []
    for _ in range(1000):  # each flush makes room for at least one
        received += heard(other)
        if not one.wants_to_write:
            break
        one.flush()
    received += heard(other)
    assert received == sent
    assert not one.wants_to_write


def test_descriptors_wait_in_the_queue(pair: Pair) -> None:
    """They are the channel's copies until they are sent, and then closed here."""
    one, other = pair
    before = open_descriptors()
    while not one.wants_to_write:
        one.send(Accept())
    one.send(ReopenLogs(), [0])
    assert len(open_descriptors()) == len(before) + 1
    heard(other)
    one.flush()
    (_, descriptors) = other.receive()[-1]
    assert len(descriptors) == 1
    os.close(descriptors[0])
    assert open_descriptors() == before


def test_closing_drops_the_queue_and_its_descriptors(pair: Pair) -> None:
    """Nothing leaks with it."""
    one, _ = pair
    before = open_descriptors()
    while not one.wants_to_write:
        one.send(Accept())
    one.send(ReopenLogs(), [0, 1, 2])
    one.close()
    assert not one.wants_to_write
    assert one.fileno() == -1
    assert len(open_descriptors()) == len(before) - 1


def test_the_end_comes_after_the_last_message(pair: Pair) -> None:
    """What the other side said before it closed is heard."""
    one, other = pair
    one.send(Ready(["sum"]))
    one.send(BootFailed("service", "why"))
    one.close()
    assert heard(other) == [Ready(["sum"]), BootFailed("service", "why")]
    assert other.is_closed
    assert heard(other) == []


def test_a_peer_killed_with_unread_messages_is_still_heard_to_the_end(pair: Pair) -> None:
    """Its channel raises ECONNRESET before the messages it had queued: they are read on to the end."""
    ours, theirs = pair
    ours.send(Accept())  # never read by the child: that is what makes the kernel reset
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            for number in range(20):
                theirs.send(Serving(number))
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    theirs.close()
    os.waitpid(pid, 0)
    assert heard(ours) == [Serving(number) for number in range(20)]
    assert ours.is_closed


def test_the_reset_is_there_to_be_passed_over() -> None:
    """The kernel's own behaviour, which the test before is about: without it that test would prove nothing."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one:
        one.send(b"unread")
        other.send(b"last words")
        other.close()
        with pytest.raises(ConnectionResetError):
            one.recv(100)
        assert one.recv(100) == b"last words"
        assert one.recv(100) == b""


def test_sending_to_a_dead_peer_is_no_error(pair: Pair) -> None:
    """`receive` tells; the queue and its descriptors go."""
    one, other = pair
    while not one.wants_to_write:
        one.send(Accept())
    before = open_descriptors()
    one.send(ReopenLogs(), [0, 1])
    other.close()
    one.flush()
    one.send(ReopenLogs(), [0, 1])
    assert not one.wants_to_write
    assert len(open_descriptors()) == len(before) - 1
    assert heard(one) == []
    assert one.is_closed


def test_what_cannot_be_understood_is_dropped_and_logged(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """Another version's message, or a service that wrote here, must not end the process; descriptors are closed."""
    one, other = pair
    before = open_descriptors()
    raw = socket.socket(fileno=os.dup(one.fileno()))
    with raw:
        send_packet(raw, b"\x91\xcd\x03\xe8", [0, 1])
        send_packet(raw, b"\xc1\xc1")
    one.send(Accept())
    assert heard(other) == [Accept()]
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(" bytes")[0] for line in lines] == [
        "Dropped a message between processes: found a packet of 4",
        "Dropped a message between processes: found a packet of 1",
    ]
    assert open_descriptors() == before


def test_the_largest_packet_passes(pair: Pair) -> None:
    """Some 200 KiB: more than any boot failure's text."""
    message = BootFailed("service", "x" * 200_000)
    pair[0].send(message)
    assert heard(pair[1]) == [message]
