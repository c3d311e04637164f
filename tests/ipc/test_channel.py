"""Channels: messages in order, none lost, nothing blocks, and the end comes after the last word."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import pytest
from descriptors import descriptors_left, open_descriptors

from rpccluster.ipc import packets
from rpccluster.ipc.channel import LARGEST_PACKET, Channel, channel_pair
from rpccluster.ipc.fdpass import IN_MEMORY_FILE, memory_file, send_packet
from rpccluster.ipc.messages import (
    Accept,
    BootFailed,
    Give,
    Go,
    Message,
    Ready,
    Refused,
    ReopenLogs,
    Serving,
    WantsToRetire,
)
from rpccluster.ipc.packets import Unopened, close_all

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


def give(size: int) -> Give:
    return Give(7, ["127.0.0.1", 1], False, b"i" * size, b"", [[1, 2]])


def test_an_unknown_kind_with_descriptors_is_refused(pair: Pair) -> None:
    """By its number: it came from a later version, which has kept what it sent."""
    one, other = pair
    before = open_descriptors()
    read_end, write_end = os.pipe()
    for fields in ([5, "a connection"], ["no number"], []):
        send_packet(one._socket, msgpack.packb([100, *fields]), [read_end])
    send_packet(one._socket, msgpack.packb([100, 6]))
    os.close(read_end)
    os.close(write_end)
    assert heard(other) == []
    assert heard(one) == [Refused(5)]
    assert open_descriptors() == before


# -- what another version may say


def of_another_version(packed: bytes, is_long: bool, descriptor: int) -> tuple[bytes, list[int]]:
    """A packet with a descriptor, as a message of this form goes: as it is, or in a memory file."""
    return (IN_MEMORY_FILE, [descriptor, memory_file(packed)]) if is_long else (packed, [descriptor])


READERS = pytest.mark.parametrize("read", [Channel.receive, Channel.receive_unopened], ids=lambda read: read.__name__)
LENGTHS = pytest.mark.parametrize("is_long", [False, True], ids=["short", "long"])
GIVE = give(100)


@READERS
@LENGTHS
@pytest.mark.parametrize(
    "fields",
    [[127, 7, "of a later version"], [10, *GIVE[:5]], [10, GIVE.cid], [10, 7, 5], [127, 7, [["a"]], b"b"]],
    ids=["another kind", "one field fewer", "its number alone", "fields of another kind", "more of another kind"],
)
def test_a_connection_that_is_not_understood_is_refused(
    pair: Pair, fields: list[Any], is_long: bool, read: Callable[[Channel], Any]
) -> None:
    """Not lost: whoever has sent it hears so, and has its own copy. Nothing is left open, and later ones come."""
    one, other = pair
    before = open_descriptors()
    data, descriptors = of_another_version(msgpack.packb(fields), is_long, os.open("/dev/null", os.O_RDONLY))
    send_packet(one._socket, data, descriptors)
    close_all(descriptors)
    one.send(Accept())
    assert read(other) == [(Accept(), [])]
    assert heard(one) == [Refused(fields[1])]
    assert open_descriptors() == before


@READERS
@LENGTHS
def test_a_connection_with_one_field_more_comes(pair: Pair, is_long: bool, read: Callable[[Channel], Any]) -> None:
    """With its descriptor; a later version has added something."""
    one, other = pair
    before = open_descriptors()
    packed = msgpack.packb([10, *GIVE, {"added": "later"}])
    data, descriptors = of_another_version(packed, is_long, os.open("/dev/null", os.O_RDONLY))
    send_packet(one._socket, data, descriptors)
    close_all(descriptors)
    ((message, received),) = read(other)
    stub = GIVE._replace(input=b"", output=b"")
    assert message == (Unopened(stub) if is_long and read is Channel.receive_unopened else GIVE)
    assert os.fstat(received[0]).st_rdev == os.stat("/dev/null").st_rdev
    close_all(received)
    assert heard(one) == []
    assert open_descriptors() == before


# the message around the bytes takes some 30 more
@pytest.mark.parametrize("size", [LARGEST_PACKET - 100, LARGEST_PACKET - 20, LARGEST_PACKET, 200_000, 5_000_000])
def test_a_message_may_be_of_any_size(pair: Pair, size: int) -> None:
    """What no packet could hold travels in a memory file, behind the message's own descriptors; none is left."""
    before = open_descriptors()
    message = give(size)
    pair[0].send(message)
    assert pair[1].receive() == [(message, [])]
    read_end, write_end = os.pipe()
    pair[0].send(message, [read_end])
    os.close(read_end)
    pair[0].send(Accept())
    (first, (copy,)), (second, none) = pair[1].receive()
    assert (first, second, none) == (message, Accept(), [])
    os.write(write_end, b"the same pipe")
    assert os.read(copy, 100) == b"the same pipe"
    for descriptor in (copy, write_end):
        os.close(descriptor)
    assert open_descriptors() == before


def test_long_messages_wait_in_the_queue(pair: Pair) -> None:
    """In their order, with their descriptors."""
    one, other = pair
    before = open_descriptors()
    while not one.wants_to_write:
        one.send(Accept())
    one.send(give(200_000), [0])
    one.send(Serving(1))
    heard(other)
    one.flush()
    (*_, (message, descriptors), (last, _)) = other.receive()
    assert (message, len(descriptors), last) == (give(200_000), 1, Serving(1))
    os.close(descriptors[0])
    assert open_descriptors() == before


def test_what_is_queued_can_be_taken_back(pair: Pair) -> None:
    """Whatever its size, in its order; nothing of it is sent, and its descriptors are closed."""
    one, other = pair
    before = open_descriptors()
    one.send(Go())
    while not one.wants_to_write:
        one.send(Accept())
    assert one.unsend() == [(Accept(), [])]
    sent = heard(other)
    assert (sent[0], set(sent[1:])) == (Go(), {Accept()})
    while not one.wants_to_write:
        one.send(Accept())
    one.send(give(10), [0, 1])
    one.send(give(200_000), [0])
    one.send(Serving(1))
    taken = one.unsend()
    assert [message for message, _ in taken] == [Accept(), give(10), Unopened(give(0)), Serving(1)]
    assert [len(descriptors) for _, descriptors in taken] == [0, 2, 2, 0]
    for _, descriptors in taken:
        close_all(descriptors)
    assert one.unsend() == []
    assert not one.has_unsent
    assert open_descriptors() == before
    assert set(heard(other)) == {Accept()}
    one.send(Go())
    assert heard(other) == [Go()]


def test_the_other_ends_copy_reads_what_is_unread(pair: Pair) -> None:
    """A packet goes to whoever reads it first, whichever copy of the end that is: so connections are taken back."""
    one, other = pair
    copy = Channel(socket.socket(fileno=os.dup(other.fileno())))
    for number in range(4):
        one.send(Serving(number))
    assert heard(copy) == [Serving(number) for number in range(4)]
    one.send(Serving(4))
    assert heard(other) == [Serving(4)]
    assert heard(copy) == []
    assert not copy.is_closed
    copy.close()


@pytest.mark.parametrize("size", [10, 200_000])
def test_a_message_whose_descriptors_were_lost_still_comes(
    pair: Pair, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    """Without any; of a long one all but its bytes: enough to say no to it."""
    before = open_descriptors()
    pair[0].send(give(size), [0])
    pair[0].send(Accept())
    with descriptors_left(0):
        received = pair[1].receive()
    assert received == [(give(size) if size == 10 else give(0), []), (Accept(), [])]
    assert "came without its descriptors" in caplog.text
    assert open_descriptors() == before


def test_sending_needs_no_descriptor_of_its_own(pair: Pair) -> None:
    """As long as there is room in the kernel."""
    with descriptors_left(0):
        pair[0].send(give(10), [0])
    ((message, (copy,)),) = pair[1].receive()
    assert message == give(10)
    os.close(copy)


def test_a_copy_that_cannot_be_had_is_an_error(pair: Pair) -> None:
    """The message is not half queued."""
    one, other = pair
    while not one.wants_to_write:
        one.send(Accept())
    with descriptors_left(0), pytest.raises(OSError, match="Too many open files"):
        one.send(give(10), [0])
    heard(other)
    one.flush()
    assert heard(other) == [Accept()]


def test_the_largest_text_passes(pair: Pair) -> None:
    """Some 200 KiB: more than any boot failure's."""
    message = BootFailed("service", "x" * 200_000)
    pair[0].send(message)
    assert heard(pair[1]) == [message]


# -- sockets with little room, and a kernel that has none


def small_pair(size: int) -> Pair:
    """Two ends whose sockets take ``size`` bytes, doubled by the kernel."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (one, other):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
    return Channel(one), Channel(other)


@pytest.mark.parametrize("size", [1, 2304, 16_384])
def test_a_long_message_passes_whatever_the_sockets_room(size: int) -> None:
    """What does not fit into a packet goes in a memory file; it was taken for sent."""
    one, other = small_pair(size)
    messages = [give(number) for number in (3000, 5000, 40_000, 100_000, 200_000)]
    for message in messages:
        one.send(message)
    found: list[Message] = []
    while len(found) < len(messages):
        found += heard(other)
        one.flush()
    assert found == messages
    one.close()
    other.close()


def test_more_awaited_calls_than_a_packet_holds_pass(pair: Pair) -> None:
    """Then the packet holds nothing but that there is a file, whoever reads or passes it on."""
    message = Give(7, [], False, b"input", b"", [[1, msgid] for msgid in range(100_000)])
    pair[0].send(message)
    assert heard(pair[1]) == [message]
    pair[0].send(message)
    ((seen, descriptors),) = pair[1].receive_unopened()
    assert seen == Unopened(message._replace(input=b""))
    pair[1].send(seen, descriptors)
    close_all(descriptors)
    assert heard(pair[0]) == [message]


def test_what_is_passed_on_is_not_opened(pair: Pair) -> None:
    """A long message goes through a process that never has its bytes, and arrives with all of them."""
    before = open_descriptors()
    pair[0].send(give(200_000), [0])
    ((seen, descriptors),) = pair[1].receive_unopened()
    assert seen == Unopened(give(0))
    pair[1].post(pair[1].pack(seen, descriptors))
    ((message, (copy,)),) = pair[0].receive()
    assert message == give(200_000)
    os.close(copy)
    assert open_descriptors() == before


class FailingOnce:
    """A socket of which the kernel takes one packet, and then has no memory for the next."""

    def __init__(self, sock: socket.socket, error: Exception) -> None:
        self.sock = sock
        self.errors = [None, error]

    def recvmsg(self, *arguments: int) -> object:
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        return self.sock.recvmsg(*arguments)

    def __getattr__(self, name: str) -> object:
        return getattr(self.sock, name)


@pytest.mark.parametrize("error", [OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), MemoryError()], ids=repr)
def test_what_was_found_before_an_error_is_kept(pair: Pair, error: Exception) -> None:
    """It may be a connection; the error comes with the next call if it is still one, and alone."""
    before = open_descriptors()
    for number in (1, 2):
        pair[0].send(Serving(number), [0])
    failing = FailingOnce(pair[1]._socket, error)
    pair[1]._socket = failing  # type: ignore[assignment]
    ((one, (copy,)),) = pair[1].receive()
    failing.errors = [error]
    with pytest.raises(type(error)):
        pair[1].receive()
    ((two, (second_copy,)),) = pair[1].receive()
    assert [one, two] == [Serving(1), Serving(2)]
    close_all([copy, second_copy])
    assert open_descriptors() == before


@pytest.mark.parametrize("error", [OSError(errno.EIO, "no more pages"), MemoryError()], ids=repr)
def test_a_packet_that_cannot_be_read_costs_itself_alone(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """Of a long message the stub comes, without descriptors, as if they had been lost: enough to say no to it."""
    before = open_descriptors()

    def fail(descriptor: int, **options: bool) -> bytes:
        os.close(descriptor)
        raise error

    monkeypatch.setattr(packets, "read_memory_file", fail)
    for message in (Serving(1), give(200_000), Serving(2)):
        pair[0].send(message, [0])
    received = pair[1].receive()
    assert [message for message, _ in received] == [Serving(1), give(0), Serving(2)]
    assert [len(descriptors) for _, descriptors in received] == [1, 0, 1]
    assert f"Cannot read a message between processes: {error!r}" in caplog.text
    for _, descriptors in received:
        close_all(descriptors)
    assert open_descriptors() == before


def test_looking_into_a_long_message_needs_no_descriptor(pair: Pair) -> None:
    """Whoever passes on one that has no stub may hold no more; none of what came with it is lost."""
    before = open_descriptors()
    message = Give(7, [], False, b"input", b"", [[1, msgid] for msgid in range(100_000)])
    pair[0].send(Serving(1), [0])
    pair[0].send(message, [0])
    with descriptors_left(3):
        (one, other) = pair[1].receive_unopened()
    assert (one[0], other[0]) == (Serving(1), Unopened(message._replace(input=b"")))
    assert [len(descriptors) for _, descriptors in (one, other)] == [1, 2]
    close_all(one[1] + other[1])
    assert open_descriptors() == before


class Refusing:
    """A socket on which the kernel refuses to send, for a while."""

    def __init__(self, sock: socket.socket, error: int) -> None:
        self.sock = sock
        self.error = error

    def sendmsg(self, *arguments: object) -> int:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        return self.sock.sendmsg(*arguments)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> object:
        return getattr(self.sock, name)


@pytest.mark.parametrize("error", [errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS])
def test_a_kernel_without_room_is_tried_again(pair: Pair, error: int) -> None:
    """Nothing is lost, and no watching for writing helps: the owner comes back after a while."""
    socket_ = Refusing(pair[0]._socket, error)
    pair[0]._socket = socket_  # type: ignore[assignment]
    pair[0].send(Serving(1), [0])
    pair[0].send(Serving(2))
    assert pair[0].is_barred
    assert pair[0].has_unsent
    assert not pair[0].wants_to_write
    assert heard(pair[1]) == []
    socket_.error = 0
    pair[0].flush()
    (one, (copy,)), (two, _) = pair[1].receive()
    os.close(copy)
    assert [one, two] == [Serving(1), Serving(2)]


def test_any_other_error_is_told(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """It cannot be mended here, and must not go by in silence."""
    pair[0]._socket = Refusing(pair[0]._socket, errno.EINVAL)  # type: ignore[assignment]
    pair[0].send(Serving(1))
    assert "Cannot send a message to another process: [Errno 22]" in caplog.text
    assert not pair[0].has_unsent


def test_a_memory_file_that_cannot_be_filled_is_not_left_open() -> None:
    """Such as under RLIMIT_FSIZE: the error comes to the sender, who has sent nothing."""
    before = open_descriptors()
    program = """if True:
        import os, resource, signal
        from rpccluster.ipc.channel import channel_pair
        from rpccluster.ipc.messages import Reply
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        one, other = channel_pair()
        before = os.listdir("/proc/self/fd")
        try:
            one.send(Reply(1, 1, bytes(200_000)))
        except OSError as error:
            print(error.errno, os.listdir("/proc/self/fd") == before, other.receive())
    """
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == [str(errno.EFBIG), "True", "[]"]
    assert open_descriptors() == before
